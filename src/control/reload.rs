//! What a new configuration changes in a run that goes on: outputs and own devices; all else takes a
//! restart and is named. The data path is not touched.

use crate::config::{self, Config, RunConfig};
use crate::engine::Device;
use crate::sink::Target;

/// What is to be changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) outputs: Vec<Target>,
    pub(super) own_devices: Vec<Device>,
    /// Keys that have changed and cannot be followed.
    pub(super) fixed: Vec<&'static str>,
}

/// Reads the configuration file again, with the same command line over it.
///
/// # Errors
///
/// [`config::Error`]: nothing is changed then.
pub(super) fn plan(now: &RunConfig) -> Result<Plan, config::Error> {
    Config::run_again(&now.typed).map(|next| Plan::between(now, next))
}

impl Plan {
    fn between(now: &RunConfig, next: RunConfig) -> Self {
        let mut fixed = Vec::new();
        let mut compare = |name, is_same: bool| {
            if !is_same {
                fixed.push(name);
            }
        };
        compare("iface", now.interfaces == next.interfaces);
        compare("mode", now.mode == next.mode);
        compare("spool", now.spool == next.spool);
        compare("settle", now.settle_ns == next.settle_ns);
        compare("flows", now.flow_capacity == next.flow_capacity);
        compare("queues", now.queue_limit == next.queue_limit);
        compare("metrics", now.metrics == next.metrics);
        compare("unconfined", now.unconfined == next.unconfined);
        Self {
            outputs: next.outputs,
            own_devices: next.own_devices,
            fixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Plan;
    use crate::cli::Cli;
    use crate::config::{Config, RunConfig};

    fn config(line: &str) -> RunConfig {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Config::Run(config) = Config::resolve(cli).unwrap() else {
            panic!("not run");
        };
        config
    }

    #[test]
    fn outputs_and_devices_are_followed_and_the_rest_is_named() {
        let now = config("rstscope run --iface a --flows 100");
        let next = config("rstscope run --iface b --flows 100 --output file:///x --mode mirror");
        let plan = Plan::between(&now, next.clone());
        assert_eq!(plan.outputs, next.outputs);
        assert_eq!(plan.fixed, ["iface", "mode"]);
        assert!(Plan::between(&now, now.clone()).fixed.is_empty());
    }
}
