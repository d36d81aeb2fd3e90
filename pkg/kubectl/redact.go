package kubectl

import (
	"bytes"
	"regexp"

	"k8s.io/client-go/rest"
)

// leftOut is in the place of what nobody else is to read.
const leftOut = "[left out]"

// called are the names of what is secret.
const called = `(?i)((?:password|passwd|passphrase|secret|token|credentials?|key-data|(?:api|access|private|encryption|shared)[_-]?key)`

// secrets are what looks like one, wherever it is, between two groups that are kept: JSON
// stays JSON. Nobody writes to it.
var secrets = []*regexp.Regexp{
	// A private key in PEM, also as JSON writes its lines.
	regexp.MustCompile(`()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)()`),
	regexp.MustCompile(`()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*()`), // a token of a service account or of a login (JWT)
	regexp.MustCompile(`()\b[a-z0-9]{6}\.[a-z0-9]{16}\b()`),  // a bootstrap token
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}()`),
	regexp.MustCompile(`(://[^/\s:@"]*:)[^/\s@"]+(@)`),
	regexp.MustCompile(called + `["']?\s*[:=]\s*")(?:[^"\\]|\\.)*(")`),             // "clientSecret": "…", token="…"
	regexp.MustCompile(called + `["']?\s*[:=]\s*')[^']*(')`),                       // api-key: '…'
	regexp.MustCompile(called + `(?:\\+")?\s*[:=]\s*\\+")(?:[^"\\]|\\\\.)*(\\+")`), // JSON in a string of JSON
	regexp.MustCompile(called + `\s*[:=]\s*)[^\s,;{}\[\]"'\\]+()`),                 // password=…
	// An environment variable of a container: {"name": "API_TOKEN", "value": "…"}.
	regexp.MustCompile(`(?i)("name":\s*"[^"]*(?:password|passwd|secret|token|credential|key)[^"]*",\s*"value":\s*")(?:[^"\\]|\\.)*(")`),
}

// redactor takes secrets out of text.
type redactor struct {
	own [][]byte // what this program itself is let in with
}

func newRedactor(config *rest.Config) *redactor {
	r := &redactor{}
	for _, text := range []string{config.BearerToken, config.Password, string(config.KeyData)} {
		if text != "" {
			r.own = append(r.own, []byte(text))
		}
	}
	return r
}

// clean returns the text without what looks like a secret.
func (r *redactor) clean(text []byte) []byte {
	for _, own := range r.own {
		text = bytes.ReplaceAll(text, own, []byte(leftOut))
	}
	for _, s := range secrets {
		text = s.ReplaceAll(text, []byte(`${1}`+leftOut+`${2}`))
	}
	return text
}
