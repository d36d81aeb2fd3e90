package apivalue

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestParseAddr(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "010.000.00.08": "10.0.0.8", "fd00::1": "fd00::1", "::ffff:10.0.0.1": "10.0.0.1", "fe80::1%eth0": "fe80::1%eth0",
		"": "", "10.0.0": "", "10..0.1": "", "10.0.0.256": "", " 10.0.0.1": "", "fd00::g": "",
	} {
		a, err := ParseAddr(text)
		got := ""
		if err == nil {
			got = a.String()
		}
		if got != want {
			t.Errorf("%q: %q (%v), want %q", text, got, err, want)
		}
	}
}

func TestProtocol(t *testing.T) {
	for text, want := range map[v1.Protocol]Protocol{"": TCP, "TCP": TCP, "UDP": UDP, "SCTP": SCTP} {
		if got, ok := ProtocolOf(text); got != want || !ok || !got.HasPorts() {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	if _, ok := ProtocolOf("tcp"); ok {
		t.Error("tcp is none of Kubernetes'")
	}
	for p, want := range map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp", 1: "icmp", 58: "icmpv6", 47: "47"} {
		if p.String() != want {
			t.Errorf("%d is %s, want %s", uint8(p), p, want)
		}
	}
	if Protocol(1).HasPorts() {
		t.Error("ICMP has ports")
	}
}
