//! A whole cluster from nothing: `pgweir dev`.
