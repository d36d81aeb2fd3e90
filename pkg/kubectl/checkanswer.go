package kubectl

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// judge reads what the pod's server says of its question: {"responses": […]} or
// {"errors": […]}.
func (q *question) judge(answer string, own []netip.Addr) {
	var said struct{ Responses, Errors []string }
	if err := json.Unmarshal([]byte(answer), &said); err != nil {
		q.Failure = answer // curl's own words
		if answer == "" {
			q.Failure = "no answer"
		}
		return
	}
	if len(said.Errors) > 0 || len(said.Responses) == 0 {
		q.Failure = strings.Join(said.Errors, "; ")
		if q.Failure == "" {
			q.Failure = "an empty answer"
		}
		return
	}
	if q.Kind == byService {
		q.answered = said.Responses
		return
	}
	q.sees(said.Responses[0])
	for _, a := range own {
		if q.Seen == a.String() {
			return
		}
	}
	if q.Failure == "" {
		q.Failure = fmt.Sprintf("is seen as %s: its address was translated", q.Seen)
	}
}

// sees notes the address that the other end has seen.
func (q *question) sees(addressAndPort string) {
	host, _, err := net.SplitHostPort(strings.TrimSpace(addressAndPort))
	a, failure := netip.ParseAddr(host)
	if errors.Join(err, failure) != nil {
		q.Failure = fmt.Sprintf("the answer is %q, which is no address", addressAndPort)
		return
	}
	q.Seen = a.Unmap().WithZone("").String()
}
