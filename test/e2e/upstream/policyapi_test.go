package upstream

import (
	"slices"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/e2e/report"
)

func TestReadPolicyAPI(t *testing.T) {
	got := readPolicyAPI(`=== RUN   TestConformance
    suite.go:221: Applying base/a.yaml
--- FAIL: TestConformance (72.10s)
    --- PASS: TestConformance/CNPAdminTierEgressTCP (31.50s)
        --- PASS: TestConformance/CNPAdminTierEgressTCP/Should_support (9.00s)
    --- FAIL: TestConformance/CNPAdminTierGress (2.00s)
        --- FAIL: TestConformance/CNPAdminTierGress/Should_deny (1.00s)
    --- SKIP: TestConformance/CNPAdminTierEgressSCTP (0.00s)
FAIL
`)
	want := []report.Result{
		{Group: PolicyAPI, Name: "CNPAdminTierEgressTCP", Outcome: report.Pass, Duration: 31500 * time.Millisecond},
		{Group: PolicyAPI, Name: "CNPAdminTierGress", Outcome: report.Fail, Duration: 2 * time.Second, Detail: "see the log"},
		{Group: PolicyAPI, Name: "CNPAdminTierEgressSCTP", Outcome: report.Skip, Detail: "of SCTP, or a feature that is not there: see the log"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}
