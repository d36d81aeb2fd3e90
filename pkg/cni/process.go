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

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
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
	if err := utils.ValidateContainerID(r.ContainerID); err != nil {
		return err
	}
	if len(r.ContainerID) > maxContainerID {
		return Fail(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID is too long",
			fmt.Sprintf("%d bytes, at most %d: %.32s…", len(r.ContainerID), maxContainerID, r.ContainerID))
	}
	if err := utils.ValidateInterfaceName(r.IfName); err != nil {
		return Fail(err.Code, err.Msg, strings.TrimPrefix(fmt.Sprintf("%s; CNI_IFNAME is %q", err.Details, r.IfName), "; "))
	}
	return nil
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
	if err := utils.ValidateNetworkName(head.Name); err != nil {
		return err
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
	converted, err := result.GetAsVersion(r.Version)
	if err != nil {
		return Fail(types.ErrIncompatibleCNIVersion, "converting result to version "+r.Version+": "+err.Error(), "")
	}
	if err := converted.PrintTo(p.Stdout); err != nil {
		return Fail(types.ErrIOFailure, "writing result to stdout: "+err.Error(), "")
	}
	return nil
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

// versionWait bounds the wait for standard input at VERSION: a person at a
// terminal gives none.
const versionWait = 200 * time.Millisecond

func (p Process) askedVersion() string {
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
	case <-time.After(versionWait):
		return ""
	}
}

// supported returns the versions of the protocol that are spoken, 0.1.0 first.
func supported() []string { return version.All.SupportedVersions() }
