//! Where the cluster is, and its password: flags before variables before files.
//! Never contacts a node.

use std::io::{self, Read};
use std::path::Path;

use memkv_client::Endpoints;
use memkv_client::proto::limits::MAX_CONFIG_BYTES;
use memkv_client::proto::{ClusterConfig, ErrorCode};

use super::args::{
    Args, DEFAULT_CONFIG, ENDPOINTS_VARIABLE, PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE,
};
use super::{Failure, usage};

/// Where the cluster is: flags before the variable, before the file that the seed's client reads,
/// before the default.
pub(crate) fn endpoints(args: &Args) -> Result<Endpoints, Failure> {
    if let Some(text) = &args.endpoints {
        return Ok(Endpoints::parse(text)?);
    }
    if let Some(file) = &args.config {
        return read_config(file);
    }
    if let Some(text) = std::env::var_os(ENDPOINTS_VARIABLE).filter(|text| !text.is_empty()) {
        return Endpoints::parse(&text.to_string_lossy())
            .map_err(|err| usage(format!("{ENDPOINTS_VARIABLE}: {err}")));
    }
    let file = Path::new(DEFAULT_CONFIG);
    if file.exists() {
        read_config(file)
    } else {
        Ok(Endpoints::default())
    }
}

fn read_config(file: &Path) -> Result<Endpoints, Failure> {
    let name = file.display().to_string();
    let failed = |err: io::Error| {
        let message = format!(
            "cannot read {name}: {err}; write {{\"addrs\":[{{\"addr\":\"host:port\",\"id\":\"n1\"}}]}} \
             there, or use --endpoints"
        );
        Failure::Usage(message, ErrorCode::BadConfig)
    };
    let mut text = String::new();
    // One byte more than allowed, so that the parser sees that it is too long.
    let limit = MAX_CONFIG_BYTES as u64 + 1;
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened
        .take(limit)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let config = ClusterConfig::from_json(&text, &name)
        .map_err(|err| Failure::Usage(err.to_string(), err.code()))?;
    Ok(config.into())
}

/// The password, if there is one. It is no flag: every user of the machine could read it.
pub(crate) fn password(args: &Args) -> Result<Option<String>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|text| !text.is_empty());
    if let Some(file) = &args.password_file {
        return read_password(file).map(Some);
    }
    if let Some(text) = variable(PASSWORD_VARIABLE) {
        let text = text.into_string();
        return text
            .map(Some)
            .map_err(|_| usage(format!("{PASSWORD_VARIABLE} is no UTF-8")));
    }
    variable(PASSWORD_FILE_VARIABLE)
        .map(|file| read_password(Path::new(&file)))
        .transpose()
}

/// As the server reads its `password_file`: without the line end.
fn read_password(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|err| usage(format!("cannot read the password in {name}: {err}")))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(usage(format!("there is no password in {name}"))),
        text => Ok(text.to_owned()),
    }
}
