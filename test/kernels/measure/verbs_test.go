package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/test/bench/page"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// rounds is how often each verb is measured: enough for a median.
const rounds = 15

// TestVerbs attaches and detaches pods with flatnet and with ptp and host-local, in
// turn: flatnet's median of elapsed time, and of the processor's time in the plugins'
// processes, divided by ptp's. `make bench` measures with more care, on one kernel.
func TestVerbs(t *testing.T) {
	if testing.Short() {
		t.Skip("with -test.short nothing is measured")
	}
	lab := netlab.Start(t)
	ipam := map[string]any{
		"type": "host-local", "ranges": [][]map[string]string{{{"subnet": "10.70.0.0/16"}}},
		"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
	}
	with := func(program, directory string, conf map[string]any) *contender {
		state := t.TempDir()
		section := map[string]any{"dataDir": filepath.Join(state, "ipam")}
		for key, value := range ipam {
			section[key] = value
		}
		all := map[string]any{"cniVersion": "1.0.0", "name": "pods", "type": program, "ipam": section}
		for key, value := range conf {
			all[key] = value
		}
		return &contender{t: t, node: lab.Node(program), directory: directory, program: program, conf: all}
	}
	flatnet := with("flatnet", ours, map[string]any{"stateDir": t.TempDir()})
	ptp := with("ptp", peers, nil)
	for round := range rounds + 1 {
		for _, c := range []*contender{flatnet, ptp} {
			pod := lab.Pod(fmt.Sprintf("%s%d", c.program, round))
			add, result := c.run("ADD", pod)
			c.conf["prevResult"] = result
			del, _ := c.run("DEL", pod)
			delete(c.conf, "prevResult")
			if round > 0 { // the first reads from the disk, and loads modules
				c.adds, c.dels = append(c.adds, add), append(c.dels, del)
			}
		}
	}
	for _, verb := range []struct {
		name       string
		ours, ptps []cost
	}{{"ADD", flatnet.adds, ptp.adds}, {"DEL", flatnet.dels, ptp.dels}} {
		our, their := median(verb.ours), median(verb.ptps)
		t.Logf("%s: flatnet %s, ptp %s", verb.name, our, their)
		t.Logf("figure: %s, flatnet / ptp, elapsed time: %.2f", verb.name, our.elapsed.Seconds()/their.elapsed.Seconds())
		t.Logf("figure: %s, flatnet / ptp, processor time: %.2f", verb.name, our.processor.Seconds()/their.processor.Seconds())
	}
}

// contender is a plugin with a node of its own.
type contender struct {
	t                  *testing.T
	node               *netlab.Node
	directory, program string
	conf               map[string]any
	adds, dels         []cost
}

// cost is what an execution takes.
type cost struct{ elapsed, processor time.Duration }

func (c cost) String() string {
	return fmt.Sprintf("%s (processor %s)", c.elapsed.Round(10*time.Microsecond), c.processor.Round(10*time.Microsecond))
}

// run executes a verb as a runtime does.
func (c *contender) run(verb string, pod *netlab.Namespace) (cost, json.RawMessage) {
	c.t.Helper()
	conf, err := json.Marshal(c.conf)
	if err != nil {
		c.t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(filepath.Join(c.directory, c.program))
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + pod.Name, "CNI_NETNS=" + pod.Path, "CNI_IFNAME=eth0",
		"CNI_PATH=" + c.directory, "PATH=" + os.Getenv("PATH"),
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(conf), &output, os.Stderr
	begin := time.Now()
	err = c.node.Run(cmd)
	took := time.Since(begin)
	if err != nil {
		c.t.Fatalf("%s %s: %v: %s", c.program, verb, err, output.String())
	}
	// Of the children that it waited for, too: ptp executes host-local.
	return cost{took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, output.Bytes()
}

func median(costs []cost) cost {
	var elapsed, processor []time.Duration
	for _, c := range costs {
		elapsed, processor = append(elapsed, c.elapsed), append(processor, c.processor)
	}
	return cost{page.Quantile(elapsed, 0.5), page.Quantile(processor, 0.5)}
}
