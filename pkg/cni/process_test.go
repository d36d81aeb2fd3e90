package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// verbs notes which verb was called, and returns err from it.
type verbs struct {
	called string
	err    error
}

func (v *verbs) Add(_ context.Context, r *Request) (*current.Result, error) {
	v.called = r.Command
	return &current.Result{CNIVersion: "1.1.0"}, v.err
}
func (v *verbs) Del(_ context.Context, r *Request) error    { v.called = r.Command; return v.err }
func (v *verbs) Check(_ context.Context, r *Request) error  { v.called = r.Command; return v.err }
func (v *verbs) GC(_ context.Context, r *Request) error     { v.called = r.Command; return v.err }
func (v *verbs) Status(_ context.Context, r *Request) error { v.called = r.Command; return v.err }

// execute runs a process with the given environment and configuration.
func execute(v *verbs, environment map[string]string, config string) (status int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	p := Process{
		About: "about", Getenv: func(k string) string { return environment[k] },
		Stdin: strings.NewReader(config), Stdout: &out, Stderr: &errOut,
	}
	status = p.Run(v)
	return status, out.String(), errOut.String()
}

const config = `{"cniVersion": "1.1.0", "name": "net"}`

func environment(command string, more ...string) map[string]string {
	e := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "id", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0"}
	for i := 0; i < len(more); i += 2 {
		e[more[i]] = more[i+1]
	}
	return e
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for _, c := range []struct {
		environment map[string]string
		config      string
		code        uint
		want        string
	}{
		{environment("EAT"), config, 4, "unknown CNI_COMMAND: EAT"},
		{map[string]string{"CNI_COMMAND": "ADD"}, config, 4, "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"},
		{map[string]string{"CNI_COMMAND": "DEL"}, config, 4, "[CNI_CONTAINERID,CNI_IFNAME]"},
		{environment("ADD", "CNI_CONTAINERID", "../x"), config, 4, "../x"},
		{environment("ADD", "CNI_CONTAINERID", long), config, 4, "CNI_CONTAINERID is too long"},
		{environment("ADD", "CNI_IFNAME", "a/b"), config, 4, `"a/b"`},
		{environment("ADD", "CNI_IFNAME", "sixteencharacter"), config, 4, "too long"},
		{environment("ADD"), ``, 6, "decoding"},
		{environment("ADD"), `{`, 6, "decoding"},
		{environment("ADD"), `{"name": 7}`, 6, "name"},
		{environment("ADD"), `{"cniVersion": "1.1.0"}`, 7, "missing network name"},
		{environment("ADD"), `{"cniVersion": "1.1.0", "name": "a b"}`, 7, "a b"},
		{environment("ADD"), `{"cniVersion": "1.1.0", "name": "` + long + `"}`, 7, "too long"},
		{environment("ADD"), `{"cniVersion": "1.2.0", "name": "net"}`, 1, "1.2.0"},
		{environment("CHECK"), `{"cniVersion": "0.3.1", "name": "net"}`, 1, "config version does not allow CHECK"},
		{environment("GC"), `{"cniVersion": "1.0.0", "name": "net"}`, 1, "config version does not allow GC"},
		{environment("STATUS"), `{"name": "net"}`, 1, "config version does not allow STATUS"},
	} {
		v := &verbs{}
		status, stdout, _ := execute(v, c.environment, c.config)
		var e types.Error
		if err := json.Unmarshal([]byte(stdout), &e); err != nil || status == 0 || e.Code != c.code || !strings.Contains(e.Error(), c.want) {
			t.Errorf("%v %.80s: status %d, code %d, stdout %s; want code %d and %q", c.environment, c.config, status, e.Code, stdout, c.code, c.want)
		}
		if v.called != "" {
			t.Errorf("%v %.80s: %s was called", c.environment, c.config, v.called)
		}
	}
}

func TestVerbs(t *testing.T) {
	for _, c := range []struct {
		environment map[string]string
		want        string // on stdout, or "" for nothing
	}{
		{environment("ADD"), `"cniVersion": "1.1.0"`},
		{environment("DEL", "CNI_NETNS", ""), ""},
		{environment("CHECK"), ""},
		{map[string]string{"CNI_COMMAND": "GC", "CNI_IFNAME": "not/looked/at"}, ""},
		{map[string]string{"CNI_COMMAND": "STATUS"}, ""},
	} {
		v := &verbs{}
		status, stdout, _ := execute(v, c.environment, config)
		if status != 0 || v.called != c.environment["CNI_COMMAND"] || !strings.Contains(stdout, c.want) || c.want == "" && stdout != "" {
			t.Errorf("%v: status %d, called %q, stdout %q", c.environment, status, v.called, stdout)
		}
	}
	status, stdout, stderr := execute(&verbs{}, nil, "")
	if status != 0 || stdout != "" || !strings.Contains(stderr, "about") || !strings.Contains(stderr, "0.1.0, 0.2.0") {
		t.Errorf("by hand: status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func TestVersion(t *testing.T) {
	for input, want := range map[string]string{
		"": "1.1.0", "nonsense": "1.1.0", "{}": "1.1.0",
		`{"cniVersion": "0.4.0"}`: "0.4.0", `{"cniVersion": "x"}`: "1.1.0", `{"cniVersion": "7.0.0"}`: "7.0.0",
	} {
		_, stdout, _ := execute(&verbs{}, map[string]string{"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy"}, input)
		if !strings.Contains(stdout, `"cniVersion":"`+want+`"`) || !strings.Contains(stdout, `"0.1.0","0.2.0"`) {
			t.Errorf("%q: %s, want %s", input, stdout, want)
		}
	}
}

// Standard input that never ends does not keep VERSION from answering, and one that
// comes late is answered in its version.
func TestVersionWaitsForInput(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration // until it comes; 0 stands for never
		want  string
	}{{"never", 0, "1.1.0"}, {"late", versionWait - time.Millisecond, "0.4.0"}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				input, output := io.Pipe()
				defer output.Close()
				if c.after > 0 {
					time.AfterFunc(c.after, func() { _, _ = io.WriteString(output, `{"cniVersion": "0.4.0"}`) })
				}
				var out bytes.Buffer
				p := Process{Getenv: func(string) string { return "VERSION" }, Stdin: input, Stdout: &out, Stderr: io.Discard}
				if status := p.Run(&verbs{}); status != 0 || !strings.Contains(out.String(), `"cniVersion":"`+c.want+`"`) {
					t.Errorf("status %d, stdout %q, want version %s", status, out.String(), c.want)
				}
			})
		})
	}
}

func TestCodes(t *testing.T) {
	typed := Fail(7, "message", "details")
	for _, c := range []struct {
		err  error
		want string
	}{
		{typed, `{"cniVersion":"1.1.0","code":7,"msg":"message","details":"details"}`},
		{errors.Join(typed, errors.New("more")), `{"cniVersion":"1.1.0","code":7,"msg":"message; details\nmore"}`},
		{errors.New("plain"), `{"cniVersion":"1.1.0","code":999,"msg":"plain"}`},
		{Wrap(100, errors.New("plain"), "do"), `{"cniVersion":"1.1.0","code":100,"msg":"plain","details":"do"}`},
		{Wrap(100, typed, "do"), `{"cniVersion":"1.1.0","code":7,"msg":"message","details":"details"}`},
	} {
		_, stdout, _ := execute(&verbs{err: c.err}, environment("ADD"), config)
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(stdout)); err != nil || compact.String() != c.want {
			t.Errorf("%v: %s, want %s (%v)", c.err, &compact, c.want, err)
		}
	}
	if Wrap(100, nil, "") != nil {
		t.Error("Wrap made an error of nothing")
	}
}

// In every version, a result reads as what the library itself would print.
func TestResultsReadAsTheLibrarysOwn(t *testing.T) {
	table, scope := 7, 0
	full := &current.Result{
		CNIVersion: "1.1.0",
		Interfaces: []*current.Interface{{Name: "veth0", Mac: "02:00:00:00:00:01", Mtu: 1500}, {Name: "eth0", Sandbox: "/x", Mtu: 1500}},
		IPs:        []*current.IPConfig{{Interface: current.Int(1), Address: network("10.1.2.3/32"), Gateway: net.ParseIP("10.1.2.1")}},
		Routes:     []*types.Route{{Dst: network("10.0.0.0/8"), GW: net.ParseIP("169.254.1.1"), MTU: 1400, AdvMSS: 1300, Priority: 3, Table: &table, Scope: &scope}},
		DNS:        types.DNS{Nameservers: []string{"10.1.2.53"}, Domain: "d", Search: []string{"s"}, Options: []string{"o"}},
	}
	for _, result := range []*current.Result{full, {CNIVersion: "1.1.0", IPs: full.IPs}} {
		for _, v := range supported() {
			converted, err := result.GetAsVersion(v)
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			if err := converted.PrintTo(&want); err != nil {
				t.Fatal(err)
			}
			got, err := encodeResult(result, v)
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			if json.Unmarshal(got, &a) != nil || json.Unmarshal(want.Bytes(), &b) != nil || !reflect.DeepEqual(a, b) {
				t.Errorf("version %s: got\n%s\nwant\n%s", v, got, &want)
			}
		}
	}
}

func network(text string) net.IPNet {
	address, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err)
	}
	return net.IPNet{IP: address, Mask: n.Mask}
}

// Whatever comes in, standard output is one document or nothing.
func FuzzProcess(f *testing.F) {
	f.Add("ADD", "id", "/x", "eth0", "A=B", config)
	f.Add("DEL", "", "", "", "", `{"cniVersion": "0.1.0", "name": "net"}`)
	f.Add("VERSION", "", "", "", "", `{"cniVersion": "0.1.0"}`)
	f.Fuzz(func(t *testing.T, command, id, netns, ifname, args, config string) {
		status, stdout, _ := execute(&verbs{}, map[string]string{
			"CNI_COMMAND": command, "CNI_CONTAINERID": id, "CNI_NETNS": netns, "CNI_IFNAME": ifname, "CNI_ARGS": args,
		}, config)
		if stdout == "" && status == 0 {
			return
		}
		d := json.NewDecoder(strings.NewReader(stdout))
		var document map[string]any
		if err := d.Decode(&document); err != nil {
			t.Fatalf("status %d, stdout %q: %v", status, stdout, err)
		}
		if _, err := d.Token(); err != io.EOF {
			t.Errorf("more than one document: %q", stdout)
		}
		if _, isError := document["code"]; isError != (status != 0) {
			t.Errorf("status %d, stdout %q", status, stdout)
		}
	})
}
