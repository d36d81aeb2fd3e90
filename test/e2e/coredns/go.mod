// The cluster's DNS server, built as a Go module. Apart from kubernetes, whose
// versions of k8s.io's modules are others.
module github.com/flatnet-cni/flatnet/test/e2e/coredns

go 1.26.0

require github.com/coredns/coredns v1.14.7

tool github.com/coredns/coredns
