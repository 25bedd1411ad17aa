//! Where the cluster is, and its password: flags before variables before files.
//! Never contacts a node.

use std::fmt::Display;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memkv_client::{Endpoints, Tls, TlsFiles};
use memkv_proto::limits::MAX_CONFIG_BYTES;
use memkv_proto::secret::{self, Access, MAX_SECRET_BYTES};
use memkv_proto::{ClusterConfig, ErrorCode};

use super::args::{
    Args, DEFAULT_CONFIG, ENDPOINTS_VARIABLE, PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE,
};
use super::{Failure, usage};

/// Where the cluster is: flags before the variable, before the file that the original's client reads,
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

/// How nodes are reached over TLS, if they are.
pub(crate) fn tls(args: &Args, endpoints: &Endpoints) -> Result<Option<Tls>, Failure> {
    let own = match (&args.cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(usage("--cert and --key go together".to_owned())),
    };
    if !args.tls && !endpoints.is_tls() {
        return match args.cacert.is_some() || own.is_some() {
            true => Err(usage(
                "--cacert, --cert and --key are for TLS: add --tls, or https:// to the endpoints"
                    .to_owned(),
            )),
            false => Ok(None),
        };
    }
    let ca = args.cacert.clone();
    Ok(Some(Tls::new(&TlsFiles { ca, own })?))
}

/// The password, if there is one. It is no flag: every user of the machine could read it. A file, of
/// the flag before that of the variable, and the variable that holds it must agree, as at the server.
pub(crate) fn password(args: &Args) -> Result<Option<String>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|text| !text.is_empty());
    let said = variable(PASSWORD_VARIABLE).map(|text| {
        text.into_string()
            .map_err(|_| usage(format!("{PASSWORD_VARIABLE} is no UTF-8")))
    });
    let said = said.transpose()?;
    let named = variable(PASSWORD_FILE_VARIABLE).map(PathBuf::from);
    let Some(file) = args.password_file.clone().or(named) else {
        return Ok(said);
    };
    let written = read_password(&file)?;
    if said.is_some_and(|said| said != written) {
        return Err(usage(format!(
            "{PASSWORD_VARIABLE} and {} hold different passwords; leave one of them out",
            file.display()
        )));
    }
    Ok(Some(written))
}

/// As the server reads its `password_file`.
fn read_password(file: &Path) -> Result<String, Failure> {
    let failed = |err: &dyn Display| {
        usage(format!(
            "cannot use the password in {}: {err}",
            file.display()
        ))
    };
    let opened = std::fs::File::open(file).map_err(|err| failed(&err))?;
    let told = opened.metadata().map_err(|err| failed(&err))?;
    let access = Access {
        mode: told.mode(),
        owner: told.uid(),
        user: rustix::process::geteuid().as_raw(),
    };
    secret::check_access(access).map_err(|err| failed(&err))?;
    let mut bytes = Vec::new();
    opened
        .take(MAX_SECRET_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|err| failed(&err))?;
    let text = secret::password(&bytes).map_err(|err| failed(&err))?;
    Ok(text.to_owned())
}
