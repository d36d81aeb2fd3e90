package conformance

import (
	"encoding/json"
	"slices"
	"strings"
)

// versionReply is what VERSION prints.
type versionReply struct {
	CNIVersion        string   `json:"cniVersion"`
	SupportedVersions []string `json:"supportedVersions"`
}

// asked is VERSION with something on stdin.
func (s *stage) asked(stdin string) versionReply {
	r := s.request("VERSION", attachment{}, nil)
	r.stdin = []byte(stdin)
	return s.versions(s.run(r))
}

// versions demands that a reply is that of a successful VERSION.
func (s *stage) versions(r reply) versionReply {
	found, err := documents(r.stdout)
	if err != nil || len(found) != 1 || r.exit != 0 || r.broken != nil {
		s.failf("VERSION: %v", r)
	}
	var v versionReply
	if err := json.Unmarshal(found[0], &v); err != nil || len(v.SupportedVersions) == 0 {
		s.failf("VERSION: %v", r)
	}
	return v
}

var versionItems = []item{
	{"A9.74", must, "VERSION prints cniVersion and supportedVersions, of which 1.1.0 is one", func(s *stage) {
		v := s.asked(`{"cniVersion":"1.1.0"}`)
		if v.CNIVersion != "1.1.0" || !slices.Contains(v.SupportedVersions, "1.1.0") {
			s.failf("%+v", v)
		}
	}},
	{"A9.74b", should, "VERSION answers whatever is on stdin, or nothing", func(s *stage) {
		for _, stdin := range []string{"", "{", "null", "[]", `{"cniVersion":7}`, `{"cniVersion":"nonsense"}`, strings.Repeat("x", 1<<20)} {
			if v := s.asked(stdin); v.CNIVersion == "" || len(v.SupportedVersions) == 0 {
				s.failf("VERSION with stdin %.20q: %+v", stdin, v)
			}
		}
	}},
	{"A9.74c", must, "VERSION answers in the version that it is asked in", func(s *stage) {
		for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
			if v := s.asked(`{"cniVersion":"` + version + `"}`); v.CNIVersion != version {
				s.failf("asked in %s, answered with cniVersion %s", version, v.CNIVersion)
			}
		}
	}},
	{"A9.74d", must, "VERSION lists the same versions whatever it is asked in", func(s *stage) {
		want := s.asked(`{"cniVersion":"1.1.0"}`).SupportedVersions
		for _, stdin := range []string{"", `{"cniVersion":"0.1.0"}`, `{"cniVersion":"9.8.7"}`} {
			if got := s.asked(stdin).SupportedVersions; !slices.Equal(got, want) {
				s.failf("%v, but with stdin %q %v", want, stdin, got)
			}
		}
	}},
}
