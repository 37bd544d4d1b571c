//! placeholder
use crate::config::Config;
/// x
pub fn print(_config: &Config) -> String {
    String::new()
}
