package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/flatnet-cni/flatnet/pkg/policy"
	"github.com/flatnet-cni/flatnet/pkg/service"
)

// Status is what `flatnetd status -o json` prints, for those who read it in Go. It has
// the fields that somebody asks for: the parts of other features are in the document
// all the same.
type Status struct {
	Head
	FabricStatus
	MasqueradeStatus
	PodsStatus
	PeersStatus
	ServicesStatus
	BGPSummary
	BalancersStatus
	PoliciesStatus
	FastPathStatus
	RequirementsStatus
	ProblemsStatus
}

// AskStatus asks the flatnetd of a state directory.
func AskStatus(ctx context.Context, stateDir string) (s Status, err error) {
	err = decode(ctx, stateDir, "/status", &s)
	return s, err
}

// AskServices asks the flatnetd of a state directory who serves what Service.
func AskServices(ctx context.Context, stateDir string) (s service.Status, err error) {
	err = decode(ctx, stateDir, "/status/services", &s)
	return s, err
}

// AskBGP asks the flatnetd of a state directory about its sessions with routers.
func AskBGP(ctx context.Context, stateDir string) (s BGPStatus, err error) {
	err = decode(ctx, stateDir, "/status/bgp", &s)
	return s, err
}

// AskAnnouncements asks the flatnetd of a state directory who answers for addresses of
// load balancers.
func AskAnnouncements(ctx context.Context, stateDir string) (a Announcements, err error) {
	err = decode(ctx, stateDir, "/status/announcements", &a)
	return a, err
}

// AskPolicies asks the flatnetd of a state directory what policies come to for each pod.
func AskPolicies(ctx context.Context, stateDir string) (s PodPolicies, err error) {
	err = decode(ctx, stateDir, "/status/policies", &s)
	return s, err
}

// AskToExplain asks the flatnetd of a state directory what decides about a connection.
func AskToExplain(ctx context.Context, stateDir, from, to, port string) (e policy.Explanation, err error) {
	question := url.Values{"from": {from}, "to": {to}, "port": {port}}
	err = decode(ctx, stateDir, "/policy/explain?"+question.Encode(), &e)
	return e, err
}

// decode reads a JSON answer into what to points to.
func decode(ctx context.Context, stateDir, question string, to any) error {
	raw, err := askAgent(ctx, stateDir, question)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("reading flatnetd's answer: %w", err)
	}
	return nil
}

// askAgent returns the answer of the flatnetd of a state directory.
func askAgent(ctx context.Context, stateDir, question string) ([]byte, error) {
	path := SocketPath(stateDir)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // nobody asks twice over one connection
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://flatnetd"+question, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("asking flatnetd: %w: root may ask", err)
		}
		return nil, fmt.Errorf("asking flatnetd: %w: no flatnetd runs with --state-dir %s; look at its log (journalctl -u flatnetd, or kubectl -n flatnet logs)", err, stateDir)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return nil, fmt.Errorf("asking flatnetd: %s", strings.TrimSpace(string(text)))
	}
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("reading flatnetd's answer: %w", err)
	}
	return all, nil
}
