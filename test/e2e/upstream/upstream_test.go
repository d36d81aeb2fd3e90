package upstream

import (
	"regexp"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/e2e/report"
)

func TestParse(t *testing.T) {
	results, err := parse([]byte(`<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="5"><testsuite name="Kubernetes e2e suite" tests="5">
  <testcase name="[SynchronizedBeforeSuite]" status="passed" time="0.5"></testcase>
  <testcase name="[It] [sig-network] DNS works [Conformance] [sig-network, Conformance]" status="passed" time="1.5"></testcase>
  <testcase name="[It] [sig-network] Proxy works" status="failed" time="2"><failure message="it does not" type="failed">trace</failure></testcase>
  <testcase name="[It] [sig-network] SCTP" status="skipped" time="0.1"><skipped message="skipped - no SCTP here"></skipped></testcase>
  <testcase name="[It] [sig-node] not selected" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
  <testcase name="[It] [sig-network] hung" status="timedout" time="9"><error message="took too long" type="timedout"></error></testcase>
</testsuite></testsuites>`), Together{Conformance, {Name: "suite", Focus: "."}}.group)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	report.Table(&text, results)
	const want = `pass     1.5 s  Conformance: [sig-network] DNS works [Conformance]
FAIL     2.0 s  suite: [sig-network] Proxy works: it does not
skip     0.1 s  suite: [sig-network] SCTP: no SCTP here
FAIL     9.0 s  suite: [sig-network] hung: took too long

1 passed, 2 failed, 1 skipped
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
	if _, err := parse([]byte("nothing"), Together{}.group); err == nil {
		t.Error("no error")
	}
}

// TestNetworkHas: what is run of upstream's other tests, by their full names.
func TestNetworkHas(t *testing.T) {
	for name, want := range map[string]bool{
		"[sig-network] Networking should check kube-proxy urls":                                           true,
		"[sig-network] Networking Granular Checks: Services should function for pod-Service: sctp [SCTP]": false,
		"[sig-network] DNS should provide DNS for the cluster [Conformance]":                              false,
		"[sig-node] Pods should be submitted and removed":                                                 false,
	} {
		has := regexp.MustCompile(Network.Focus).MatchString(name) && !regexp.MustCompile(Network.Skip).MatchString(name)
		if has != want {
			t.Errorf("%s: run %t, want %t", name, has, want)
		}
	}
}

// TestPoliciesHas: what is run of upstream's tests of policies.
func TestPoliciesHas(t *testing.T) {
	for name, want := range map[string]bool{
		"[sig-network] Netpol NetworkPolicy between server and client should support a 'default-deny-all' policy [Feature:NetworkPolicy]": true,
		"[sig-network] NetworkPolicy API should support creating NetworkPolicy API operations [Conformance]":                              true,
		"[sig-network] Networking should check kube-proxy urls":                                                                           false,
	} {
		has := regexp.MustCompile(Policies.Focus).MatchString(name) && !regexp.MustCompile(Policies.Skip).MatchString(name)
		if has != want {
			t.Errorf("%s: run %t, want %t", name, has, want)
		}
	}
}

func TestTogether(t *testing.T) {
	both := Together{Conformance, DualStack}
	for _, c := range []struct{ what, got, want string }{
		{"name", both.Name(), "Conformance and dual stack"},
		{"focus", both.focus(), Conformance.Focus + "|" + DualStack.Focus},
		{"skip", both.skip(), DualStack.Skip},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}
