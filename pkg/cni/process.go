// Package cni is the process protocol of the Container Network Interface:
// parameters in the environment, configuration on standard input, exactly one
// JSON document or nothing on standard output (SPEC.md, section 2).
//
// The reference library's skeleton is not used, because it looks whether
// CNI_NETNS is the plugin's own namespace only after the verb has run, then
// prints a second document; wants CNI_PATH of plugins that execute nothing; and
// leaves cniVersion out of errors.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// Request is one execution of a plugin.
type Request struct {
	Command     string
	ContainerID string
	Netns       string // a path; may be empty, or lead nowhere, at DEL
	IfName      string
	Args        string // K=V;K=V
	Path        string // directories of plugins, separated by colons
	Version     string // of the configuration: "0.1.0" to "1.1.0"
	Network     string // the configuration's name
	Config      []byte // the configuration, whole
}

// Verbs are what a plugin can do. Each gets a request whose variables are there
// and well-formed, and whose configuration is JSON of a supported version with
// a valid name.
type Verbs interface {
	Add(context.Context, *Request) (*current.Result, error)
	Del(context.Context, *Request) error
	Check(context.Context, *Request) error
	GC(context.Context, *Request) error
	Status(context.Context, *Request) error
}

// Process is a plugin's surroundings.
type Process struct {
	About          string // printed where the program is started by hand
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Main runs a plugin in the real process and does not return.
func Main(about string, verbs Verbs) {
	p := Process{About: about, Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(p.Run(verbs))
}

// maxConfig bounds the configuration, in bytes.
const maxConfig = 4 << 20

// Run does what the environment asks for and returns the exit status.
func (p Process) Run(verbs Verbs) int {
	// No deadline here: a timer starts the runtime's poller, which costs a short
	// process a tenth of its time. What can wait bounds its own wait.
	ctx := context.Background()
	request := &Request{
		Command: p.Getenv("CNI_COMMAND"), ContainerID: p.Getenv("CNI_CONTAINERID"), Netns: p.Getenv("CNI_NETNS"),
		IfName: p.Getenv("CNI_IFNAME"), Args: p.Getenv("CNI_ARGS"), Path: p.Getenv("CNI_PATH"),
	}
	switch request.Command {
	case "":
		fmt.Fprintf(p.Stderr, "%s\nCNI protocol versions supported: %s\n"+
			"This program is run by a container runtime, which says what to do in CNI_COMMAND and other variables.\n",
			p.About, strings.Join(supported(), ", "))
		return 0
	case "VERSION":
		return p.printVersion()
	}
	if err := p.run(ctx, verbs, request); err != nil {
		v := request.Version
		if !slices.Contains(supported(), v) {
			v = current.ImplementedSpecVersion
		}
		printError(p.Stdout, v, err)
		return 1
	}
	return 0
}

func (p Process) run(ctx context.Context, verbs Verbs, r *Request) error {
	if err := r.validate(); err != nil {
		return err
	}
	if err := p.readConfig(r); err != nil {
		return err
	}
	switch r.Command {
	case "ADD":
		result, err := verbs.Add(ctx, r)
		if err != nil {
			return err
		}
		return p.printResult(r, result)
	case "DEL":
		return verbs.Del(ctx, r)
	case "CHECK":
		return verbs.Check(ctx, r)
	case "GC":
		return verbs.GC(ctx, r)
	default:
		return verbs.Status(ctx, r)
	}
}

// attachmentVerbs need to know the attachment (SPEC.md, section 2).
var attachmentVerbs = []string{"ADD", "CHECK", "DEL"}

// validate checks the environment. Variables of attachments are not looked at
// where the verb has none: runtimes set them empty or to "dummy" there.
func (r *Request) validate() error {
	if !slices.Contains([]string{"ADD", "CHECK", "DEL", "GC", "STATUS"}, r.Command) {
		return Fail(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND: "+r.Command,
			"known are ADD, DEL, CHECK, GC, STATUS and VERSION")
	}
	if !slices.Contains(attachmentVerbs, r.Command) {
		return nil
	}
	var missing []string
	for _, v := range []struct{ name, value string }{
		{"CNI_CONTAINERID", r.ContainerID}, {"CNI_NETNS", r.Netns}, {"CNI_IFNAME", r.IfName},
	} {
		if v.value == "" && (v.name != "CNI_NETNS" || r.Command != "DEL") {
			missing = append(missing, v.name)
		}
	}
	if len(missing) > 0 {
		return Fail(types.ErrInvalidEnvironmentVariables,
			fmt.Sprintf("required env variables [%s] missing", strings.Join(missing, ",")), "")
	}
	if !validName(r.ContainerID) {
		return Fail(types.ErrInvalidEnvironmentVariables, "invalid characters in CNI_CONTAINERID", abbreviate(r.ContainerID))
	}
	if len(r.ContainerID) > maxContainerID {
		return Fail(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID is too long",
			fmt.Sprintf("%d bytes, at most %d: %.32s…", len(r.ContainerID), maxContainerID, r.ContainerID))
	}
	if rule := interfaceNameRule(r.IfName); rule != "" {
		return Fail(types.ErrInvalidEnvironmentVariables, "invalid CNI_IFNAME: "+rule, fmt.Sprintf("%q", abbreviate(r.IfName)))
	}
	return nil
}

// validName reports whether text may be a container id or a network's name: it
// begins with a letter or digit, and goes on with these, underscores, dots and
// hyphens (SPEC.md, sections 1 and 2). The library's function compiles a
// regular expression for this at every start of the process.
func validName(text string) bool {
	for i, r := range text {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '_' && r != '.' && r != '-') {
			return false
		}
	}
	return text != ""
}

// interfaceNameRule returns the rule of the kernel's that a name offends, or "".
func interfaceNameRule(name string) string {
	switch {
	case len(name) >= unix.IFNAMSIZ:
		return fmt.Sprintf("the name is too long, at most %d bytes", unix.IFNAMSIZ-1)
	case name == "." || name == "..":
		return "the name is . or .."
	case strings.ContainsAny(name, "/:"):
		return "the name contains / or :"
	case strings.IndexFunc(name, unicode.IsSpace) >= 0:
		return "the name contains white space"
	}
	return ""
}

// abbreviate bounds what an error repeats of the input.
func abbreviate(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// maxContainerID bounds container ids, in bytes, which the specification does
// not. Runtimes use 64 and fewer.
const maxContainerID = 1024

func (p Process) readConfig(r *Request) error {
	raw, err := io.ReadAll(io.LimitReader(p.Stdin, maxConfig+1))
	if err != nil {
		return Fail(types.ErrIOFailure, "reading network configuration from stdin: "+err.Error(), "")
	}
	if len(raw) > maxConfig {
		return Fail(types.ErrDecodingFailure, fmt.Sprintf("network configuration is longer than %d bytes", maxConfig), "")
	}
	var head struct {
		Version *string `json:"cniVersion"`
		Name    string  `json:"name"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Fail(types.ErrDecodingFailure, "decoding network configuration: "+DescribeJSON(err), "")
	}
	// An absent version means the first (SPEC.md, "Network configuration").
	r.Version = "0.1.0"
	if head.Version != nil && *head.Version != "" {
		r.Version = *head.Version
	}
	if head.Name == "" {
		return Fail(types.ErrInvalidNetworkConfig, "missing network name", `the configuration needs a key "name"`)
	}
	if !validName(head.Name) {
		return Fail(types.ErrInvalidNetworkConfig, "invalid characters in network name", abbreviate(head.Name))
	}
	if len(head.Name) > maxNetworkName {
		return Fail(types.ErrInvalidNetworkConfig, "network name is too long",
			fmt.Sprintf("%d bytes, at most %d: %.32s…", len(head.Name), maxNetworkName, head.Name))
	}
	r.Network, r.Config = head.Name, raw
	if !slices.Contains(supported(), r.Version) {
		e := version.ErrorIncompatible{Config: r.Version, Supported: supported()}
		return Fail(types.ErrIncompatibleCNIVersion, "incompatible CNI versions", e.Details())
	}
	for verb, since := range map[string]string{"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"} {
		if allowed, err := version.GreaterThanOrEqualTo(r.Version, since); r.Command == verb && (err != nil || !allowed) {
			return Fail(types.ErrIncompatibleCNIVersion, "config version does not allow "+verb,
				fmt.Sprintf("cniVersion is %s, %s needs %s", r.Version, verb, since))
		}
	}
	return nil
}

// maxNetworkName bounds network names, in bytes: they are file names.
const maxNetworkName = 255

// DescribeJSON says what is wrong with a JSON text, by field and value.
func DescribeJSON(err error) string {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) && mismatch.Field != "" {
		return fmt.Sprintf("%s: a JSON %s cannot be read as %s", mismatch.Field, mismatch.Value, mismatch.Type)
	}
	return err.Error()
}

func (p Process) printResult(r *Request, result *current.Result) error {
	raw, err := encodeResult(result, r.Version)
	if err != nil {
		return Fail(types.ErrIncompatibleCNIVersion, "converting result to version "+r.Version+": "+err.Error(), "")
	}
	if _, err := p.Stdout.Write(append(raw, '\n')); err != nil {
		return Fail(types.ErrIOFailure, "writing result to stdout: "+err.Error(), "")
	}
	return nil
}

// resultDocument is a result since version 1.0.0. The library's own encoder
// goes through a map to leave out what is empty, which takes four times as long.
type resultDocument struct {
	CNIVersion string               `json:"cniVersion"`
	Interfaces []*current.Interface `json:"interfaces,omitempty"`
	IPs        []*current.IPConfig  `json:"ips,omitempty"`
	Routes     []*types.Route       `json:"routes,omitempty"`
	DNS        *types.DNS           `json:"dns,omitempty"`
}

func encodeResult(result *current.Result, v string) ([]byte, error) {
	if v != "1.0.0" && v != "1.1.0" {
		converted, err := result.GetAsVersion(v)
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(converted, "", "    ")
	}
	d := resultDocument{CNIVersion: v, Interfaces: result.Interfaces, IPs: result.IPs, Routes: result.Routes}
	if !result.DNS.IsEmpty() {
		d.DNS = &result.DNS
	}
	return json.MarshalIndent(d, "", "    ")
}

// printVersion answers VERSION. The specification wants the version of the
// input repeated, the library's own plugins do not read any: so a version that
// is there is repeated, and nothing on standard input is an error.
func (p Process) printVersion() int {
	v := current.ImplementedSpecVersion
	if asked := p.askedVersion(); asked != "" {
		v = asked
	}
	err := json.NewEncoder(p.Stdout).Encode(struct {
		Version   string   `json:"cniVersion"`
		Supported []string `json:"supportedVersions"`
	}{v, supported()})
	if err != nil {
		return 1
	}
	return 0
}

// versionWait and terminalWait bound the wait for standard input at VERSION. What a
// runtime writes may be late on a busy machine, and the answer to it has to be in the
// version that it asks in; a person at a terminal writes nothing, and waits for us.
const (
	versionWait  = 5 * time.Second
	terminalWait = 200 * time.Millisecond
)

func (p Process) askedVersion() string {
	wait := versionWait
	if file, is := p.Stdin.(*os.File); is {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			wait = terminalWait
		}
	}
	answer := make(chan string, 1)
	go func() {
		var head struct {
			Version string `json:"cniVersion"`
		}
		if err := json.NewDecoder(io.LimitReader(p.Stdin, maxConfig)).Decode(&head); err != nil {
			head.Version = ""
		}
		if _, _, _, err := version.ParseVersion(head.Version); err != nil {
			head.Version = ""
		}
		answer <- head.Version
	}()
	select {
	case v := <-answer:
		return v
	case <-time.After(wait):
		return ""
	}
}

// supported returns the versions of the protocol that are spoken, 0.1.0 first.
func supported() []string { return version.All.SupportedVersions() }
