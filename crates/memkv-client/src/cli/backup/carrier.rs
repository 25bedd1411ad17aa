//! HTTP to an object store, over the same library and with the same certificates as HTTP to a node.
//! Never sends anything without TLS to another machine unless `AWS_ALLOW_HTTP` allows it: a backup holds all
//! values. The one exception is the address at which a cloud gives a machine its own credentials.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use memkv_client::{Tls, server_name, tls_failure};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest time until a connection stands, TLS included. A store on another continent needs less than one second.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The same for credentials of the machine: they are one hop away, or nowhere.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(1);

/// Where AWS gives a machine its credentials over IPv6. Over IPv4 it is a link-local address.
const CREDENTIALS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Longest time from the first byte of a request to the head of its answer. A part of 16 MiB takes four minutes
/// at 64 KiB/s.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// Makes [`Carrier`]s.
#[derive(Debug)]
pub(super) struct Carriers {
    /// How it speaks TLS; made when it is needed first, as a store on this machine needs none.
    pub(super) tls: Option<Tls>,
}

impl HttpConnector for Carriers {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        Ok(HttpClient::new(Carrier {
            tls: self.tls.clone(),
            plain: allowed.is_some_and(|allowed| allowed == "true"),
        }))
    }
}

/// Carries one request after another, each over a connection of its own: parts are large, and the others few.
#[derive(Debug)]
struct Carrier {
    tls: Option<Tls>,
    plain: bool,
}

#[async_trait]
impl HttpService for Carrier {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (request, to) = addressed(request)?;
        if !to.is_tls && !self.plain && !is_near(&to.host) {
            let why = format!(
                "{} is another machine and http:// would show it to everyone between; use https://, or set \
                 AWS_ALLOW_HTTP=true if that network is yours alone",
                to.host
            );
            return Err(HttpError::new(
                HttpErrorKind::Unknown,
                io::Error::other(why),
            ));
        }
        let within = match is_link_local(&to.host) {
            true => CREDENTIALS_WITHIN,
            false => CONNECT_WITHIN,
        };
        let connecting = timeout(within, self.open(&to)).await;
        let mut sender = connecting.map_err(|_| late("connection", within))??;
        let answer = timeout(ANSWER_WITHIN, sender.send_request(request)).await;
        let answer = answer.map_err(|_| late("answer", ANSWER_WITHIN))?;
        let answer = answer.map_err(|err| HttpError::new(HttpErrorKind::Request, err))?;
        let (head, body) = answer.into_parts();
        let body = body.map_err(|err| HttpError::new(HttpErrorKind::Interrupted, err));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

type Sender = http1::SendRequest<HttpRequestBody>;

impl Carrier {
    async fn open(&self, to: &Host) -> Result<Sender, HttpError> {
        let unconnected = |err: io::Error| {
            let why = tls_failure(&err).map_or(err, io::Error::other);
            HttpError::new(HttpErrorKind::Connect, why)
        };
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await;
        let stream = stream.map_err(unconnected)?;
        if !to.is_tls {
            return speak(stream).await;
        }
        let Some(tls) = &self.tls else {
            let why = "this system has no list of CAs: name one with AWS_CA_BUNDLE";
            return Err(HttpError::new(
                HttpErrorKind::Unknown,
                io::Error::other(why),
            ));
        };
        let name = server_name(&to.name).map_err(unconnected)?;
        let stream = TlsConnector::from(tls.config()).connect(name, stream).await;
        speak(stream.map_err(unconnected)?).await
    }
}

async fn speak<S>(stream: S) -> Result<Sender, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) =
        handshake.map_err(|err| HttpError::new(HttpErrorKind::Connect, err))?;
    // It ends with the request, which is told of failures itself.
    tokio::spawn(connection);
    Ok(sender)
}

/// Where a request goes.
struct Host {
    /// `host:port`, as the certificate's check takes it.
    name: String,
    host: String,
    port: u16,
    is_tls: bool,
}

/// The request as HTTP/1.1 has it, and where it goes.
fn addressed(mut request: HttpRequest) -> Result<(Request<HttpRequestBody>, Host), HttpError> {
    let wrong = |why: &str| {
        HttpError::new(
            HttpErrorKind::Unknown,
            io::Error::other(format!("{}: {why}", request.uri())),
        )
    };
    let is_tls = match request.uri().scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong("it is neither https:// nor http://")),
    };
    let Some(authority) = request.uri().authority().cloned() else {
        return Err(wrong("it names no host"));
    };
    let port = authority
        .port_u16()
        .unwrap_or(if is_tls { 443 } else { 80 });
    let path = request.uri().path_and_query().map(|path| path.as_str());
    let path: Uri = path
        .unwrap_or("/")
        .parse()
        .map_err(|_| wrong("it has no path"))?;
    let name = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("it names no host"))?;
    *request.uri_mut() = path;
    request.headers_mut().entry(HOST).or_insert(name);
    let to = Host {
        name: format!("{}:{port}", authority.host()),
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port,
        is_tls,
    };
    Ok((request, to))
}

/// Whether a host is this machine, or the address at which a cloud gives it credentials.
fn is_near(host: &str) -> bool {
    let is_loopback = host.parse().is_ok_and(|host: IpAddr| host.is_loopback());
    host == "localhost" || is_loopback || is_link_local(host)
}

fn is_link_local(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(host)) => host.is_link_local(),
        Ok(IpAddr::V6(host)) => host == CREDENTIALS_V6,
        Err(_) => false,
    }
}

fn late(what: impl fmt::Display, within: Duration) -> HttpError {
    let why = io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no {what} within {} s", within.as_secs()),
    );
    HttpError::new(HttpErrorKind::Timeout, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_its_credentials_are_near() {
        for host in [
            "localhost",
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert!(is_near(host), "{host}");
        }
        for host in [
            "10.0.0.1",
            "s3.example",
            "localhost.example",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!is_near(host), "{host}");
        }
    }

    #[test]
    fn requests_are_addressed_as_http_wants_them() {
        let request = |uri: &str| {
            let request = Request::builder().uri(uri);
            addressed(request.body(HttpRequestBody::empty()).unwrap())
        };
        let (sent, to) = request("https://[::1]:9000/b/k?x=1").unwrap();
        assert_eq!(sent.uri(), "/b/k?x=1");
        assert_eq!(sent.headers()[HOST], "[::1]:9000");
        assert_eq!((to.name.as_str(), to.host.as_str()), ("[::1]:9000", "::1"));
        assert!(to.is_tls);
        assert_eq!(request("http://s3.example/b").unwrap().1.port, 80);
        assert!(request("/b/k").is_err());
        assert!(request("ftp://s3.example/b").is_err());
    }

    #[tokio::test]
    async fn nothing_is_sent_to_another_machine_in_the_clear() {
        let carrier = Carrier {
            tls: None,
            plain: false,
        };
        let request = Request::builder().uri("http://203.0.113.1/b/k");
        let request = request.body(HttpRequestBody::empty()).unwrap();
        let refused = carrier.call(request).await.unwrap_err().to_string();
        assert!(refused.contains("AWS_ALLOW_HTTP"), "{refused}");
    }
}
