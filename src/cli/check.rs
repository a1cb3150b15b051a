//! `pgweir check`: what is wrong with a configuration, and with the servers that it names.

use super::{ConfigFile, Failure, read, serve};
use crate::control::live::{Level, inspect};

pub(super) fn check(config: &ConfigFile) -> Result<(), Failure> {
    let (_, topology) = read(config)?;
    serve::understand(&topology)?;
    println!("{}: ok", config.file.display());
    Ok(())
}

/// A line for each finding; a failure where anything is wrong.
pub(super) fn live(config: &ConfigFile, json: bool, repair: bool) -> Result<(), Failure> {
    let (_, topology) = read(config)?;
    serve::understand(&topology)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(inspect(&topology, repair));
    for finding in &findings {
        match json {
            true => println!("{}", serde_json::to_string(finding)?),
            false => println!("{finding}"),
        }
    }
    let name = config.file.display();
    match findings.iter().filter(|finding| finding.level == Level::Fault).count() {
        0 if json => Ok(()),
        0 => {
            println!("{name}: ok on all servers");
            Ok(())
        }
        1 => Err(format!("{name}: 1 fault").into()),
        faults => Err(format!("{name}: {faults} faults").into()),
    }
}
