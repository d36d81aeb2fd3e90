package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Kinds of questions, as the table has them.
const (
	byTCP     = "TCP"
	nearby    = "same node"
	fullSize  = "full size"
	byService = "Service"
	fromNode  = "from node"
)

// kinds are all of them. Nobody writes to it.
var kinds = []string{byTCP, nearby, fullSize, byService, fromNode}

// question is one that a pod, or the node itself, asks another.
type question struct {
	Kind   string     `json:"kind"`
	From   string     `json:"from"`            // the node
	To     string     `json:"to,omitempty"`    // the node; "" for the Service
	Target netip.Addr `json:"target,omitzero"` // the pod there

	Seen    string `json:"seen,omitempty"` // the source address there
	Failure string `json:"failure,omitempty"`

	unknown  bool     // it could not be asked
	answered []string // the pods that have, of a Service
}

// family is that of the target's address.
func (q question) family() string {
	switch {
	case !q.Target.IsValid():
		return ""
	case q.Target.Is4():
		return "IPv4"
	}
	return "IPv6"
}

// serviceTries are the connections to the Service from each pod: so many that of all
// together every pod gets some.
const serviceTries = 20

// words are as they are passed to the shell: which protocol, host and port, what is said,
// whether it fills a packet of which headers take so many bytes, and how often.
func (q question) words() []string {
	switch q.Kind {
	case fullSize:
		headers := 20 + 8
		if q.Target.Is6() {
			headers = 40 + 8
		}
		return []string{"udp", q.Target.String(), strconv.Itoa(udpPort), "clientip", strconv.Itoa(headers), "1"}
	case byService:
		return []string{"http", serviceName, strconv.Itoa(tcpPort), "hostname", "0", strconv.Itoa(serviceTries)}
	}
	return []string{"http", q.Target.String(), strconv.Itoa(tcpPort), "clientip", "0", "1"}
}

// script has the pod's own server ask all others at once, each answer in a line after its
// number. A datagram is filled with blanks, which who reads it strips, up to the MTU: such
// packets are not to be fragmented, so they arrive whole or not at all.
const script = `mtu=$(cat /sys/class/net/eth0/mtu)
i=0
while [ $# -gt 0 ]; do
	say=$4
	if [ "$5" -gt 0 ]; then
		say=$say$(printf '%*s' $((mtu - $5 - ${#say})) '' | tr ' ' '+')
	fi
	( answer=$(curl -sS --max-time 10 "http://127.0.0.1:8080/dial?protocol=$1&host=$2&port=$3&tries=$6&request=$say" 2>&1 | tr -d '\n'); echo "$i $answer" ) &
	i=$((i + 1))
	shift 6
done
wait
`

// askTimeout is how long the questions of one pod may take: all are asked at once.
const askTimeout = 30 * time.Second

// ask asks from every pod and every node, and says how far it is.
func (t *trial) ask(ctx context.Context, namespace string, all []tried) *trialResult {
	r := &trialResult{Namespace: namespace}
	var done atomic.Int64
	for _, x := range all {
		if !x.second {
			r.Nodes = append(r.Nodes, x.Node)
		}
		// A node is named once, even where both its pods fail.
		if x.Failure != "" && !slices.ContainsFunc(r.NotTried, func(f failedNode) bool { return f.Node == x.Node }) {
			r.NotTried = append(r.NotTried, failedNode{x.Node, x.Failure})
		}
	}
	perNode := make([][]question, len(r.Nodes))
	atOnce(ctx, len(perNode), t.asker.parallel, func(i int) {
		if all[i].Failure == "" {
			perNode[i] = questionsOf(i, all)
			t.askPod(ctx, namespace, all[i], perNode[i], someRounds, byTCP, nearby, fullSize)
			t.askPod(ctx, namespace, all[i], perNode[i], serviceRounds, byService)
			t.askNode(ctx, all[i], perNode[i])
		}
		fmt.Fprintf(t.progress, "%d of %s tried\n", done.Add(1), counted(len(perNode), "node"))
	})
	for _, some := range perNode {
		r.Questions = append(r.Questions, some...)
	}
	return r
}

// questionsOf are all that one node's first pod has, and the node itself.
func questionsOf(i int, all []tried) (questions []question) {
	own := all[i]
	for j, other := range all {
		if other.Failure != "" || other.second && other.Node != own.Node {
			continue
		}
		for _, a := range other.Addresses {
			if other.second {
				if has(own.Addresses, a.Is4()) {
					questions = append(questions, question{Kind: nearby, From: own.Node, To: other.Node, Target: a})
				}
				continue
			}
			if i != j && has(own.Addresses, a.Is4()) {
				questions = append(questions, question{Kind: byTCP, From: own.Node, To: other.Node, Target: a}, question{Kind: fullSize, From: own.Node, To: other.Node, Target: a})
			}
			questions = append(questions, question{Kind: fromNode, From: own.Node, To: other.Node, Target: a})
		}
	}
	return append(questions, question{Kind: byService, From: own.Node})
}

func has(addresses []netip.Addr, is4 bool) bool {
	return slices.ContainsFunc(addresses, func(a netip.Addr) bool { return a.Is4() == is4 })
}

// questionsAtOnce bounds those of one command, which is a part of an address (URL).
const questionsAtOnce = 80

// How often what has failed is asked again: where policies are about the pods, other nodes
// may hear of them a little later, and the Service is served, and its name known, later still.
const (
	someRounds    = 3
	serviceRounds = 15
)

// askPod asks what a pod has to ask of some kinds, and again what has failed.
func (t *trial) askPod(ctx context.Context, namespace string, from tried, questions []question, rounds int, kinds ...string) {
	var wanted []int
	for i, q := range questions {
		if slices.Contains(kinds, q.Kind) {
			wanted = append(wanted, i)
		}
	}
	for round := range rounds {
		if len(wanted) == 0 || round > 0 && !pause(ctx, time.Second) {
			return
		}
		for some := range slices.Chunk(wanted, questionsAtOnce) {
			t.askSome(ctx, namespace, from, questions, some)
		}
		// What has arrived with another address does so the next time, too, and who may not
		// execute may not later.
		wanted = slices.DeleteFunc(wanted, func(i int) bool {
			q := questions[i]
			return q.Failure == "" || q.Seen != "" || q.unknown
		})
	}
}

// askSome asks the questions of these indices.
func (t *trial) askSome(ctx context.Context, namespace string, from tried, questions []question, asked []int) {
	command := []string{"sh", "-c", script, "sh"}
	for _, i := range asked {
		questions[i].Failure, questions[i].unknown = "", false
		command = append(command, questions[i].words()...)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errNoAnswer)
	defer cancel()
	out, err := t.asker.executor.Exec(ctx, container{namespace, from.Pod, "agnhost"}, command...)
	lines := map[int]string{}
	for line := range strings.Lines(string(out)) {
		number, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.Atoi(number); err == nil {
			lines[n] = answer
		}
	}
	for n, i := range asked {
		q := &questions[i]
		answer, is := lines[n]
		switch {
		case is:
			q.judge(answer, from.Addresses)
		case err != nil:
			q.Failure, q.unknown = "executing in the pod: "+err.Error(), true
		default:
			q.Failure, q.unknown = "the pod says nothing of it", true
		}
	}
}

// nodeAtOnce is how many commands are executed in one flatnetd's pod at a time.
const nodeAtOnce = 8

// askNode asks every pod from the node itself, by way of flatnetd, which is on its network.
func (t *trial) askNode(ctx context.Context, from tried, questions []question) {
	atOnce(ctx, len(questions), nodeAtOnce, func(i int) {
		q := &questions[i]
		if q.Kind != fromNode {
			return
		}
		to := url.URL{Scheme: "http", Host: netip.AddrPortFrom(q.Target, tcpPort).String(), Path: "/clientip"}
		within, cancel := context.WithTimeoutCause(ctx, askTimeout, errNoAnswer)
		out, err := t.asker.executor.Exec(within, from.Container, "wget", "-q", "-T", "5", "-O", "-", to.String())
		cancel()
		var exit exitError
		switch {
		case err == nil:
			q.sees(string(out))
		case errors.As(err, &exit) && exit.status != 126 && exit.status != 127:
			q.Failure = exit.Error()
		default:
			q.Failure, q.unknown = "executing wget in pod "+from.Container.Pod+": "+err.Error(), true
		}
	})
}
