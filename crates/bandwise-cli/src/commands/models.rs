//! `bandwise models`.

use bandwise::Result;
use bandwise::nn::zoo;

/// Lists the zoo.
pub fn run() -> Result<bool> {
    let width = zoo::ENTRIES.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    for entry in zoo::ENTRIES {
        say!("{:width$}  {}", entry.name, entry.description);
    }
    Ok(true)
}
