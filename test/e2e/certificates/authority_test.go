package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"testing"
)

func TestCertificatesAreWhatTheyAreFor(t *testing.T) {
	a, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pool, otherPool := x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM(a.Certificate)
	otherPool.AppendCertsFromPEM(other.Certificate)

	server, err := a.Server("server", []string{"localhost"}, []netip.Addr{netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00::1")})
	if err != nil {
		t.Fatal(err)
	}
	client, err := a.Client("system:node:n1", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	s, c := parse(t, server), parse(t, client)
	for _, name := range []string{"localhost", "172.30.0.1", "fd00::1"} {
		if _, err := s.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("as server %s: %v", name, err)
		}
	}
	if _, err := s.Verify(x509.VerifyOptions{Roots: otherPool}); err == nil {
		t.Error("another authority of the same name vouches for it")
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: usage}); err != nil {
		t.Errorf("as client: %v", err)
	}
	if c.Subject.CommonName != "system:node:n1" || len(c.Subject.Organization) != 1 || c.Subject.Organization[0] != "system:nodes" {
		t.Errorf("client is %s", c.Subject)
	}
	if _, err := s.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: usage}); err == nil {
		t.Error("a server is taken for a client")
	}
}

func parse(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}
