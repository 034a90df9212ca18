"""Certificates for one test run: a CA, servers, clients."""

import datetime
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEAR = datetime.timedelta(days=365)


class Authority:
    def __init__(self, home, name="Paifang test CA"):
        self.home = pathlib.Path(home)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        self.certificate = (
            x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name).public_key(self.key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - YEAR).not_valid_after(now + YEAR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.path = self.home / f"{name.replace(' ', '-')}.crt"
        self.path.write_text(self.pem)

    def issue(self, common_name, *names, client=False, ends=YEAR):
        """(certificate PEM, key PEM) for the given DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.name).public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - YEAR).not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        return (signed.public_bytes(pem).decode(),
                key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode())

    def files(self, label, pair):
        """The pair as two files, for clients that want paths."""
        paths = self.home / f"{label}.crt", self.home / f"{label}.key"
        for path, text in zip(paths, pair):
            path.write_text(text)
        return paths
