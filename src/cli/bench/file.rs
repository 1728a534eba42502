//! The text files that options of `imks bench` name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{ImksError, ImksResult};

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// [`ImksError::Config`] with the name of the file if it cannot be read, is larger, or is not UTF-8.
pub(super) fn read(path: &Path, bytes_max: u64) -> ImksResult<String> {
    let refused = |why: String| ImksError::Config(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    // One byte more shows that it is larger, whatever kind of file it is.
    let reading = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    reading.map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > bytes_max {
        return Err(refused(format!("such a file has at most {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not text in UTF-8".into()))
}
