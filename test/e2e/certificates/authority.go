// Package certificates makes the keys of a cluster: an authority, certificates
// for servers and clients, and kubeconfig files.
package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// lifetime of all certificates. A cluster lives for hours; this one may be
// left running over the holidays.
const lifetime = 90 * 24 * time.Hour

// Pair is a certificate and its private key, both as PEM.
type Pair struct{ Certificate, Key []byte }

// Authority signs certificates.
type Authority struct {
	Pair
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority that is its own root.
func NewAuthority(name string) (*Authority, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	pair, certificate, key, err := issue(template, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("making certificate authority %s: %w", name, err)
	}
	return &Authority{Pair: pair, certificate: certificate, key: key}, nil
}

// Client makes a certificate for a user of the API, who is in the groups.
func (a *Authority) Client(user string, groups ...string) (Pair, error) {
	return a.issue(&x509.Certificate{
		Subject:  pkix.Name{CommonName: user, Organization: groups},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Server makes a certificate for a server that is reached by these names and
// addresses.
func (a *Authority) Server(name string, names []string, addresses []netip.Addr) (Pair, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	return a.issue(template)
}

func (a *Authority) issue(template *x509.Certificate) (Pair, error) {
	pair, _, _, err := issue(template, a.certificate, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("making certificate of %s: %w", template.Subject.CommonName, err)
	}
	return pair, nil
}

// issue completes the template and signs it; without a parent by itself.
func issue(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (Pair, *x509.Certificate, *ecdsa.PrivateKey, error) {
	fail := func(err error) (Pair, *x509.Certificate, *ecdsa.PrivateKey, error) { return Pair{}, nil, nil, err }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return fail(err)
	}
	// Clocks do not differ on one machine, but they step.
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(lifetime)
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return fail(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fail(err)
	}
	return Pair{Certificate: encode("CERTIFICATE", der), Key: encode("EC PRIVATE KEY", raw)}, certificate, key, nil
}

// ServiceAccountKey makes the key pair that signs service accounts' tokens.
func ServiceAccountKey() (private, public []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, fmt.Errorf("making key of service accounts: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("making key of service accounts: %w", err)
	}
	return encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), encode("PUBLIC KEY", der), nil
}

func encode(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

// Kubeconfig writes access to the API server at a URL, as the user that the
// pair names.
func (a *Authority) Kubeconfig(server string, user Pair) []byte {
	text := func(raw []byte) string { return base64.StdEncoding.EncodeToString(raw) }
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: flatnet
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: flatnet
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: flatnet
  context: {cluster: flatnet, user: flatnet}
current-context: flatnet
`, server, text(a.Certificate), text(user.Certificate), text(user.Key))
}
