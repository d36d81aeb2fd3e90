package agent

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestFlowsWanted(t *testing.T) {
	for text, wanted := range map[string]FlowsWanted{
		`--limit -1 is less than none: 0 is all`:                                                     {Limit: -1},
		`--address 10.0.0.1,x: "x" is no address: give one, or several separated by commas`:          {Addresses: "10.0.0.1,x"},
		`--address 10.0.0.0/8: "10.0.0.0/8" is no address: give one, or several separated by commas`: {Addresses: "10.0.0.0/8"},
	} {
		if err := wanted.check(); err == nil || err.Error() != text {
			t.Errorf("%+v: %v, want %s", wanted, err, text)
		}
	}
	if err := (FlowsWanted{Pod: "a/b", Addresses: "10.0.0.1,fd00::1"}).check(); err != nil {
		t.Error(err)
	}
}

func TestPrintFlows(t *testing.T) {
	now := time.Now()
	for want, s := range map[string]RememberedFlows{
		"no flow is remembered: the data path is the kernel's, because --datapath kernel\n": {Because: "--datapath kernel"},
		"no flow is remembered\n":                            {Datapath: datapathEBPF},
		"and 7 more with fewer bytes: --limit 0 shows all\n": {Flows: make([]RememberedFlow, 2), More: 7},
	} {
		var b bytes.Buffer
		s.Print(&b, now)
		if !strings.HasSuffix(b.String(), want) {
			t.Errorf("got\n%s\nwant\n%s", &b, want)
		}
	}
}
