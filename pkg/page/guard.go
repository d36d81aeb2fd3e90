package page

import (
	"crypto/rand"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard lets nobody in but who was given the address that the server has printed. Other
// users of the machine can connect to its loopback interface too, and so can a page of
// somebody else's in the reader's browser.
//
// The address has a key, which the browser gets as a cookie in exchange. Cookies do not
// know of ports: those of 127.0.0.1:8080 are sent to 127.0.0.1:8081 as well, where
// another user may listen. So the page is below a path that nobody can guess, and the
// cookie is for that path alone.
type guard struct {
	base string // "/…/", below which everything is
	key  string
	next http.Handler
}

// cookieName is of the cookie that has the key.
const cookieName = "flatnet"

func newGuard(next http.Handler) *guard {
	return &guard{base: "/" + rand.Text() + "/", key: rand.Text(), next: next}
}

// entry is the path by which the reader comes in.
func (g *guard) entry() string { return g.base + "?" + url.Values{"key": {g.key}}.Encode() }

// policy lets the page load nothing but its own files, and nobody put it into a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// welcome sends the browser on, as a page and not as a redirect: a cookie that is for
// the same site only is not sent where somebody else's page or a file has led here.
const welcome = `<!doctype html><html lang="en"><meta charset="utf-8"><title>flatnet</title><link rel="icon" href="icon.svg"><meta http-equiv="refresh" content="0;url=./"><p><a href="./">flatnet</a></p></html>`

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case r.Method != http.MethodGet:
		h.Set("Allow", http.MethodGet)
		http.Error(w, "this page is only read: GET", http.StatusMethodNotAllowed)
	case !isLoopback(r.Host):
		// A name of somebody else's that leads to this machine makes their page's requests
		// look like those of the same origin.
		http.Error(w, "ask by 127.0.0.1, not by another name", http.StatusForbidden)
	case g.enters(r):
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: g.key, Path: g.base, HttpOnly: true, SameSite: http.SameSiteStrictMode})
		h.Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(welcome)) // the reader may have gone away
	case !ownOrigin(r):
		http.Error(w, "another page may not ask", http.StatusForbidden)
	case !g.knows(r):
		http.Error(w, "open the address that the program has printed: it has the key", http.StatusUnauthorized)
	default:
		http.StripPrefix(strings.TrimSuffix(g.base, "/"), g.next).ServeHTTP(w, r)
	}
}

// enters reports whether somebody opens the page by its full address. Where the address
// was followed from does not matter: it has the key.
func (g *guard) enters(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return r.URL.Path == g.base && equal(r.URL.Query().Get("key"), g.key) && (mode == "" || mode == "navigate")
}

// knows reports whether the browser has the key, and asks below the path.
func (g *guard) knows(r *http.Request) bool {
	if len(r.URL.Path) < len(g.base) || !equal(r.URL.Path[:len(g.base)], g.base) {
		return false
	}
	for _, c := range r.CookiesNamed(cookieName) {
		if equal(c.Value, g.key) {
			return true
		}
	}
	return false
}

// equal takes as long wherever two texts differ.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// ownOrigin reports whether the page itself asks, or its reader.
func ownOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	return origin == "" || origin == "http://"+r.Host
}

// isLoopback reports whether a Host names this machine, by any port: it may have been
// forwarded, as ssh -L does.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if name == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.IsLoopback()
}
