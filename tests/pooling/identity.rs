//! Who a session is, and what it has set before it became that, on whichever connection it is served.

use super::{Bench, direct};
use crate::support::until;

#[test]
fn another_session_user_has_no_role_of_the_one_before() {
    let bench = Bench::start("becoming", "default_pool_size = 1");
    direct("alter role becoming superuser; create role becomes_a; create role becomes_b; grant becomes_b to becomes_a");
    let (mut client, mut other) = (bench.client(), bench.client());
    let mut who = |client: &mut crate::raw::Raw| {
        other.rows("select 1");
        client.value("select session_user || ' ' || current_user || ' ' || current_setting('role')")
    };
    client.rows("set role becomes_b");
    client.rows("set session authorization becomes_a");
    assert_eq!(who(&mut client), "becomes_a becomes_a none");
    client.rows("set role becomes_b");
    assert_eq!(who(&mut client), "becomes_a becomes_b becomes_b");
    client.rows("reset session authorization");
    assert_eq!(who(&mut client), "becoming becoming none");
}

#[test]
fn what_a_superuser_has_set_stays_when_it_is_nobody_special() {
    let bench = Bench::start("stepping_down", "default_pool_size = 1");
    direct("alter role stepping_down superuser; create role stepped_down");
    let (mut client, mut other) = (bench.client(), bench.client());
    client.rows("set session_replication_role = replica");
    client.rows("set session authorization stepped_down");
    for work_mem in ["4444kB", "5555kB"] {
        client.rows(&format!("set work_mem = '{work_mem}'"));
        other.rows("select 1");
        let shown = "select current_user || ' ' || current_setting('session_replication_role') || ' ' || \
             current_setting('work_mem')";
        assert_eq!(client.value(shown), format!("stepped_down replica {work_mem}"));
    }
}

#[test]
fn half_of_a_date_style_leaves_the_other_half() {
    let bench = Bench::start("half_dated", "default_pool_size = 1");
    let mut client = bench.client_with(&[("datestyle", "Postgres, MDY")]);
    let mut other = bench.client_with(&[("datestyle", "SQL, DMY")]);
    let mut third = bench.client();
    client.rows("set datestyle to iso");
    client.rows("set datestyle to ymd");
    for _ in 0..2 {
        assert_eq!(other.value("show datestyle"), "SQL, DMY");
        assert_eq!(client.value("show datestyle"), "ISO, YMD");
    }
    client.rows("reset datestyle");
    other.rows("set datestyle = german");
    third.rows("set datestyle = ymd");
    for _ in 0..2 {
        assert_eq!(client.value("show datestyle"), "Postgres, MDY");
        assert_eq!(third.value("show datestyle"), "ISO, YMD");
        assert_eq!(other.value("show datestyle"), "German, DMY");
    }
}

#[test]
fn a_role_made_anew_is_the_one_that_is_meant() {
    let bench = Bench::start("renewing", "default_pool_size = 2");
    direct("alter role renewing superuser; create role renewed");
    let (mut client, mut other) = (bench.client(), bench.client());
    // One of the two connections has the role already,
    other.rows("begin; select 1");
    client.rows("set role renewed");
    other.rows("commit");
    other.rows("drop role renewed");
    other.rows("create role renewed");
    client.rows("set role renewed");
    // and is the only one that is free.
    for held in ["select 1", "select 2"] {
        other.rows(&format!("begin; {held}"));
        assert_eq!(client.value("select current_user"), "renewed");
        other.rows("commit");
    }
}

/// A new session begins with what the role and the database have for it, whoever has set that.
#[test]
fn what_sessions_begin_with_is_known_to_those_that_begin() {
    let bench = Bench::start("beginner", "default_pool_size = 2");
    direct("alter role beginner superuser");
    let mut owner = bench.client();
    owner.rows("alter role beginner set work_mem = '5MB'");
    assert_eq!(bench.client().value("show work_mem"), "5MB");
    owner.rows("begin");
    owner.rows(
        "alter role beginner in database shop set work_mem = '6MB'; alter role beginner set timezone = 'Asia/Tokyo'",
    );
    owner.rows("commit");
    let mut new = bench.client();
    assert_eq!((new.value("show work_mem"), new.parameters["TimeZone"].as_str()), ("6MB".to_owned(), "Asia/Tokyo"));
    // Past the proxy.
    direct("alter role beginner in database shop set work_mem = '7MB'");
    until(|| bench.client().value("show work_mem") == "7MB");
    direct("alter role beginner reset timezone");
    until(|| bench.client().parameters["TimeZone"] != "Asia/Tokyo");
}
