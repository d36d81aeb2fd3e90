package conformance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// recorderName is the IPAM plugin that the suite brings along: the test binary
// itself under another name. It does what the configuration's "ipam" section
// says and keeps a record of every execution.
const recorderName = "recorder"

// script is the recorder's "ipam" section.
type script struct {
	Type   string            `json:"type"`
	Log    string            `json:"log"`
	Reply  map[string]object `json:"reply"`  // by verb: what to print
	Fail   map[string]bool   `json:"fail"`   // by verb: whether Reply is an error
	Stderr string            `json:"stderr"` // what to print besides
	Kill   string            `json:"kill"`   // the verb at whose end the main plugin is killed
}

// recording is one execution of the recorder.
type recording struct {
	Env   map[string]string
	Stdin json.RawMessage
	// Interface and Route say whether at this moment the pod has the interface
	// and the host has a route to the scripted address.
	Interface, Route bool
}

// recorded is the address that the recorder gives to everybody.
var recorded = netip.MustParsePrefix("10.1.2.77/24")

// recorderMain is the recorder.
func recorderMain() {
	if err := recordAndReply(); err != nil {
		json.NewEncoder(os.Stdout).Encode(cniError{CNIVersion: "1.1.0", Code: 199, Msg: "recorder: " + err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

func recordAndReply() error {
	var conf struct {
		CNIVersion string `json:"cniVersion"`
		IPAM       script `json:"ipam"`
	}
	var stdin json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&stdin); err != nil {
		return err
	}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return err
	}
	verb := os.Getenv("CNI_COMMAND")
	r := recording{Env: map[string]string{}, Stdin: stdin}
	for _, pair := range os.Environ() {
		key, value, _ := strings.Cut(pair, "=")
		r.Env[key] = value
	}
	r.look()
	if err := r.append(conf.IPAM.Log); err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, conf.IPAM.Stderr)
	if reply, ok := conf.IPAM.Reply[verb]; ok {
		json.NewEncoder(os.Stdout).Encode(with(reply, object{"cniVersion": conf.CNIVersion}))
	}
	if conf.IPAM.Kill == verb {
		return syscall.Kill(os.Getppid(), syscall.SIGKILL)
	}
	if conf.IPAM.Fail[verb] {
		os.Exit(1)
	}
	return nil
}

// look finds out what of the attachment exists.
func (r *recording) look() {
	if pod, err := netns.GetFromPath(r.Env["CNI_NETNS"]); err == nil {
		if handle, err := netlink.NewHandleAt(pod); err == nil {
			_, err := handle.LinkByName(r.Env["CNI_IFNAME"])
			r.Interface = err == nil
		}
	}
	if host, err := netlab.Current(); err == nil {
		r.Route = len(routesTo(host, only(recorded.Addr()))) > 0
	}
}

// append adds the recording to a log, as a line.
func (r *recording) append(log string) error {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	return json.NewEncoder(file).Encode(r)
}

// recorder puts the recorder into a configuration, and into CNI_PATH.
func (s *stage) recorder(conf object, play script) object {
	directory := filepath.Join(s.scratch, "bin")
	link := filepath.Join(directory, recorderName)
	if _, err := os.Lstat(link); err != nil {
		self, err := os.Executable()
		s.expect(err)
		s.expect(os.MkdirAll(directory, 0o755))
		s.expect(os.Symlink(self, link))
		s.plugin.search = append(slices.Clone(s.plugin.search), directory)
	}
	play.Type, play.Log = recorderName, s.log()
	if play.Reply == nil {
		play.Reply = map[string]object{}
	}
	if play.Reply["ADD"] == nil {
		play.Reply["ADD"] = recorderResult()
	}
	return with(conf, object{"ipam": play})
}

// recorderResult is what the recorder prints on ADD if it is not told anything else.
func recorderResult() object {
	return object{
		"ips":    []object{{"address": recorded.String(), "gateway": gateway4}},
		"routes": []object{{"dst": "0.0.0.0/0"}},
	}
}

func (s *stage) log() string { return filepath.Join(s.scratch, "recorder.log") }

// recordings returns what the recorder was asked with a verb, in order.
func (s *stage) recordings(verb string) []recording {
	content, err := os.ReadFile(s.log())
	if err != nil && !os.IsNotExist(err) {
		s.failf("%v", err)
	}
	var found []recording
	for line := range strings.Lines(string(content)) {
		var r recording
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.failf("recorder's log: %v", err)
		}
		if r.Env["CNI_COMMAND"] == verb {
			found = append(found, r)
		}
	}
	return found
}

// executable says whether a program is there to be executed.
func executable(name string) bool {
	for _, directory := range filepath.SplitList(os.Getenv("PATH")) {
		if unix.Access(filepath.Join(directory, name), unix.X_OK) == nil {
			return true
		}
	}
	return false
}
