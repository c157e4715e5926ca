//! libp2p's TLS 1.3 with the cipher that the processor computes fastest first. The
//! handshake, the certificates and the name of the protocol are libp2p's (its TLS spec,
//! `specs/tls/tls.md`), so that the other end may be any libp2p node.
//!
//! `libp2p::tls` makes and reads the certificates; it always asks for ChaCha20 first,
//! which costs several times what AES-GCM does where the processor has AES.
//! See `docs/decisions/0020-block-streams-have-connections-of-their-own.md`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::tls::certificate::{self, GenError, ParseError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, ServerConfig, SignatureScheme, SupportedCipherSuite,
};

use super::handshake::{Handshake, handshake};
use super::records::Records;

const ALPN: &[u8] = b"libp2p";
const NAME: &str = "/tls/1.0.0";

/// How the certificates of libp2p may be signed.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// Secures a connection at either end, and tells whose the other end is.
#[derive(Clone)]
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// The handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    #[error("TLS handshake failed: {0}")]
    Refused(#[from] Error),
    #[error("the peer's certificate is not libp2p's: {0}")]
    Certificate(#[from] ParseError),
    #[error("the peer showed no certificate")]
    NoCertificate,
}

impl Tls {
    /// With a certificate of this key.
    pub(super) fn new(keypair: &Keypair) -> Result<Self, GenError> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = ciphers(has_fast_aes());
        let provider = Arc::new(provider);
        let (certificate, key) = certificate::generate(keypair)?;
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("it is an ECDSA key");
        // Webpki, which is asked when it is given the pair, knows no libp2p extension.
        let shown = CertifiedKey::new(vec![certificate], key);
        let shown = Arc::new(SingleCertAndKey::from(shown));
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let mut client = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the ciphers are those of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerCertificates))
            .with_client_cert_resolver(shown.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        (client.enable_secret_extraction, client.resumption) = (true, Resumption::disabled());
        let builder = ServerConfig::builder_with_provider(provider);
        let mut server = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the ciphers are those of TLS 1.3")
            .with_client_cert_verifier(Arc::new(PeerCertificates))
            .with_cert_resolver(shown);
        server.alpn_protocols = vec![ALPN.to_vec()];
        (server.enable_secret_extraction, server.send_tls13_tickets) = (true, 0);
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}

/// Fastest first: what the dialling end has first of those both have is used.
fn ciphers(fast_aes: bool) -> Vec<SupportedCipherSuite> {
    let aes = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    match fast_aes {
        true => aes.into_iter().chain(chacha).collect(),
        false => chacha.into_iter().chain(aes).collect(),
    }
}

/// Whether AES-GCM is done by instructions of the processor. Without them it is slower
/// than ChaCha20.
pub fn has_fast_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

impl UpgradeInfo for Tls {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(NAME)
    }
}

impl<C> InboundConnectionUpgrade<C> for Tls
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Records<C>);
    type Error = TlsError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let connection = UnbufferedServerConnection::new(self.server)?;
            secure(socket, connection).await
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Tls
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Records<C>);
    type Error = TlsError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // An address instead of a name leaves the name out of the handshake, as the
            // spec asks.
            let name = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let connection = UnbufferedClientConnection::new(self.client, name)?;
            secure(socket, connection).await
        }
        .boxed()
    }
}

async fn secure<C, H>(mut socket: C, mut ours: H) -> Result<(PeerId, Records<C>), TlsError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    H: Handshake,
{
    let came = handshake(&mut socket, &mut ours).await?;
    let peer = peer_of(&ours)?;
    let records = Records::new(socket, ours.finish()?, H::IS_CLIENT, &came)?;
    Ok((peer, records))
}

fn peer_of(state: &CommonState) -> Result<PeerId, TlsError> {
    let Some([shown]) = state.peer_certificates() else {
        return Err(TlsError::NoCertificate);
    };
    Ok(certificate::parse(shown)?.peer_id())
}

/// Takes exactly one certificate, which has to be signed by itself and by the key whose
/// peer it is of. Whose that is allowed to be is for others to say: libp2p compares it
/// with whom it dialled, and the gate with who is enrolled.
#[derive(Debug)]
struct PeerCertificates;

impl PeerCertificates {
    fn check(shown: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !others.is_empty() {
            return Err(Error::General("more than one certificate".into()));
        }
        // That it is signed by itself and by the peer's key is checked when it is read.
        certificate::parse(shown).map(drop).map_err(bad)
    }

    fn check_signature(
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = certificate::parse(shown).map_err(bad)?;
        certificate
            .verify_signature(signed.scheme, message, signed.signature())
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

fn bad(error: ParseError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for PeerCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for PeerCertificates {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::sockets::{keypair, sockets};
    use super::*;
    use futures::io::WriteHalf;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::tcp::tokio::TcpStream;
    use rustls::CipherSuite;

    /// What a client and a server make of each other.
    async fn handshake<C, S, Near, Far>(
        client: C,
        server: S,
    ) -> (
        Result<(PeerId, Near), C::Error>,
        Result<(PeerId, Far), S::Error>,
    )
    where
        C: OutboundConnectionUpgrade<TcpStream, Info = &'static str, Output = (PeerId, Near)>,
        S: InboundConnectionUpgrade<TcpStream, Info = &'static str, Output = (PeerId, Far)>,
    {
        let (near, far) = sockets().await;
        tokio::join!(
            client.upgrade_outbound(near, NAME),
            server.upgrade_inbound(far, NAME)
        )
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is_and_use_the_fastest_cipher() {
        let (one, other) = (keypair(1), keypair(2));
        let ends = handshake(Tls::new(&one).unwrap(), Tls::new(&other).unwrap()).await;
        let ((server, near), (client, _)) = (ends.0.unwrap(), ends.1.unwrap());
        assert_eq!(server, other.public().to_peer_id());
        assert_eq!(client, one.public().to_peer_id());
        let suite = near.suite();
        let fastest = match has_fast_aes() {
            true => CipherSuite::TLS13_AES_128_GCM_SHA256,
            false => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        assert_eq!(suite, fastest);
        let names = |fast_aes| {
            ciphers(fast_aes)
                .iter()
                .map(|c| c.suite())
                .collect::<Vec<_>>()
        };
        let aes = CipherSuite::TLS13_AES_128_GCM_SHA256;
        let chacha = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        assert_eq!((names(true)[0], names(true).len()), (aes, 3));
        assert_eq!((names(false)[0], names(false).len()), (chacha, 3));
    }

    #[tokio::test]
    async fn any_libp2p_node_is_understood_at_either_end() {
        let (one, other) = (keypair(1), keypair(2));
        let theirs = |keypair| libp2p::tls::Config::new(keypair).unwrap();
        let ends = handshake(Tls::new(&one).unwrap(), theirs(&other)).await;
        let ((server, near), (client, far)) = (ends.0.unwrap(), ends.1.unwrap());
        assert_eq!(server, other.public().to_peer_id());
        assert_eq!(client, one.public().to_peer_id());
        talk(near, far).await;
        let ends = handshake(theirs(&one), Tls::new(&other).unwrap()).await;
        let ((server, near), (client, far)) = (ends.0.unwrap(), ends.1.unwrap());
        assert_eq!(server, other.public().to_peer_id());
        assert_eq!(client, one.public().to_peer_id());
        talk(near, far).await;
    }

    async fn say(mut bytes: &[u8], mut to: WriteHalf<impl AsyncWrite + Unpin>) {
        for len in (1..).map(|count| count * 1009) {
            let (piece, rest) = bytes.split_at(len.min(bytes.len()));
            to.write_all(piece).await.unwrap();
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
        to.close().await.unwrap();
    }

    /// Both ways at once, in pieces of all sizes, until each end says that it is done.
    async fn talk(
        near: impl AsyncRead + AsyncWrite + Unpin,
        far: impl AsyncRead + AsyncWrite + Unpin,
    ) {
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
        let ((mut near_in, near_out), (mut far_in, far_out)) = (near.split(), far.split());
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let ends = async {
            tokio::join!(
                say(&bytes, near_out),
                say(&bytes, far_out),
                far_in.read_to_end(&mut there),
                near_in.read_to_end(&mut back),
            )
        };
        let deadline = std::time::Duration::from_secs(60);
        let ((), (), there_len, back_len) = tokio::time::timeout(deadline, ends).await.unwrap();
        assert_eq!((there_len.unwrap(), back_len.unwrap()), (3 << 20, 3 << 20));
        assert!(there == bytes && back == bytes);
    }

    /// Shows the certificate of one key and signs the handshake with another.
    fn impostor(shows: &Keypair) -> Tls {
        let mut tls = Tls::new(shows).unwrap();
        let (certificate, _) = certificate::generate(shows).unwrap();
        let (_, key) = certificate::generate(shows).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let shown = CertifiedKey::new(vec![certificate], key);
        let shown = Arc::new(SingleCertAndKey::from(shown));
        Arc::make_mut(&mut tls.client).client_auth_cert_resolver = shown.clone();
        Arc::make_mut(&mut tls.server).cert_resolver = shown;
        tls
    }

    #[tokio::test]
    async fn who_shows_a_certificate_that_is_not_its_own_is_nobody() {
        let (one, other) = (keypair(1), keypair(2));
        let ends = handshake(Tls::new(&one).unwrap(), impostor(&other)).await;
        assert!(ends.0.is_err(), "a client takes a server for another");
        let ends = handshake(impostor(&one), Tls::new(&other).unwrap()).await;
        assert!(ends.1.is_err(), "a server takes a client for another");
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_libp2ps_or_more_than_one_is_refused() {
        let (one, other) = (keypair(1), keypair(2));
        let (certificate, key) = certificate::generate(&other).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let shows = |certificates: Vec<CertificateDer<'static>>| {
            let key = key.clone();
            let mut tls = Tls::new(&other).unwrap();
            let shown = SingleCertAndKey::from(CertifiedKey::new(certificates, key));
            let shown = Arc::new(shown);
            Arc::make_mut(&mut tls.server).cert_resolver = shown.clone();
            Arc::make_mut(&mut tls.client).client_auth_cert_resolver = shown;
            tls
        };
        let garbage = CertificateDer::from(vec![0x30, 3, 1, 1, 0]);
        let twice = vec![certificate.clone(), certificate.clone()];
        for (shown, is_taken) in [
            (vec![garbage], false),
            (twice, false),
            (vec![certificate], true),
        ] {
            let ends = handshake(Tls::new(&one).unwrap(), shows(shown.clone())).await;
            assert_eq!(ends.0.is_ok(), is_taken);
            let ends = handshake(shows(shown), Tls::new(&one).unwrap()).await;
            assert_eq!(ends.1.is_ok(), is_taken);
        }
    }
}
