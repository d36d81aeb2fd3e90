// Package kube says what the machines of a cluster run: which programs with
// which flags, configuration files and certificates. It starts nothing.
package kube

import (
	"net/netip"

	"github.com/flatnet-cni/flatnet/test/e2e/certificates"
	"github.com/flatnet-cni/flatnet/test/e2e/plan"
)

// Secrets are the keys of a cluster.
type Secrets struct {
	Authority, FrontProxy *certificates.Authority
	Server                certificates.Pair // of kube-apiserver
	Kubelet               certificates.Pair // as which kube-apiserver talks to kubelets
	Aggregator            certificates.Pair // as which kube-apiserver talks to its extensions
	Admin                 certificates.Pair
	// Private and Public are the key of service accounts.
	Private, Public []byte
}

// NewSecrets makes all keys but those of nodes.
func NewSecrets(c plan.Cluster) (*Secrets, error) {
	var s Secrets
	var err error
	if s.Authority, err = certificates.NewAuthority("flatnet-cluster"); err != nil {
		return nil, err
	}
	if s.FrontProxy, err = certificates.NewAuthority("flatnet-cluster-front-proxy"); err != nil {
		return nil, err
	}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}
	addresses := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	addresses = append(append(addresses, c.Machines[0].Hosts()...), c.APIService...)
	if s.Server, err = s.Authority.Server("kube-apiserver", names, addresses); err != nil {
		return nil, err
	}
	if s.Kubelet, err = s.Authority.Client("kube-apiserver-kubelet-client", "system:masters"); err != nil {
		return nil, err
	}
	if s.Aggregator, err = s.FrontProxy.Client("front-proxy-client"); err != nil {
		return nil, err
	}
	if s.Admin, err = s.Authority.Client("admin", "system:masters"); err != nil {
		return nil, err
	}
	s.Private, s.Public, err = certificates.ServiceAccountKey()
	return &s, err
}
