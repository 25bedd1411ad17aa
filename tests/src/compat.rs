//! The original's JSON interface: `POST /memkv{id}/store/{get,set,del,exist}`.

use std::io;

use serde_json::{Value, json};

use crate::http::{Http, Response};

/// A client that talks to one node over one connection, and reconnects after an error.
pub struct Compat {
    addr: String,
    id: String,
    connection: Option<Http>,
}

/// An answer of the original's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompatReply {
    /// HTTP status.
    pub http: u16,
    /// `status` of the JSON.
    pub status: String,
    /// `value` of the JSON; only `get` has one.
    pub value: Option<String>,
    /// Whether the server replied that the command may have been executed.
    pub maybe: bool,
    /// Revision of the store that the answer saw.
    pub revision: Option<u64>,
    /// The body, byte for byte.
    pub body: String,
}

impl Compat {
    /// A client of the node with this id that listens on `addr`.
    pub fn new(addr: &str, id: &str) -> Compat {
        Compat {
            addr: addr.to_owned(),
            id: id.to_owned(),
            connection: None,
        }
    }

    /// The same over a connection that is open already.
    pub fn over(http: Http, addr: &str, id: &str) -> Compat {
        Compat {
            connection: Some(http),
            ..Compat::new(addr, id)
        }
    }

    /// Reads a key.
    pub fn get(&mut self, key: &str) -> io::Result<CompatReply> {
        self.call("get", &json!({ "key": key }))
    }

    /// Writes a key.
    pub fn set(&mut self, key: &str, value: &str) -> io::Result<CompatReply> {
        self.call("set", &json!({ "key": key, "value": value }))
    }

    /// Deletes a key.
    pub fn del(&mut self, key: &str) -> io::Result<CompatReply> {
        self.call("del", &json!({ "key": key }))
    }

    /// Asks whether a key exists.
    pub fn exist(&mut self, key: &str) -> io::Result<CompatReply> {
        self.call("exist", &json!({ "key": key }))
    }

    /// Sends any JSON to an operation.
    pub fn call(&mut self, operation: &str, body: &Value) -> io::Result<CompatReply> {
        self.send(operation, body.to_string().as_bytes())
            .and_then(|response| parse(&response))
    }

    /// Sends any bytes to an operation.
    pub fn send(&mut self, operation: &str, body: &[u8]) -> io::Result<Response> {
        let path = format!("/memkv{}/store/{operation}", self.id);
        let mut http = match self.connection.take() {
            Some(http) => http,
            None => Http::connect(&self.addr)?,
        };
        let headers = [
            ("Content-Type", "application/json"),
            ("Connection", "Keep-Alive"),
        ];
        let response = http.request("POST", &path, &headers, body)?;
        if response
            .header("connection")
            .is_none_or(|value| !value.eq_ignore_ascii_case("close"))
        {
            self.connection = Some(http);
        }
        Ok(response)
    }
}

fn parse(response: &Response) -> io::Result<CompatReply> {
    let body = response.text();
    let json: Value = serde_json::from_str(&body)
        .map_err(|error| io::Error::other(format!("not JSON ({error}): {body:?}")))?;
    let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(CompatReply {
        http: response.status,
        status: text("status").unwrap_or_default(),
        value: text("value"),
        maybe: response.header("x-memkv-executed") == Some("maybe"),
        revision: response
            .header("x-memkv-revision")
            .and_then(|value| value.parse().ok()),
        body,
    })
}
