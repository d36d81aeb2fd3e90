package page

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// served is a page that is served, and its address.
func served(t *testing.T, s *Server) (address *url.URL) {
	t.Helper()
	l, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	told, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- s.Serve(ctx, l, func(address string) error {
			told <- address
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if address, err = url.Parse(<-told); err != nil {
		t.Fatal(err)
	}
	return address
}

// get asks, with headers that are names and values in turn; "Host" is one of them.
func get(t *testing.T, c *http.Client, address string, headers ...string) (status int, body string, h http.Header) {
	t.Helper()
	return request(t, c, http.MethodGet, address, headers...)
}

func request(t *testing.T, c *http.Client, method, address string, headers ...string) (status int, body string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

// entered is a browser that was given the address, and the address below which the page is.
func entered(t *testing.T, address *url.URL) (browser *http.Client, below string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser = &http.Client{Jar: jar}
	// From a file or a mail it is a request across sites, and still lets its reader in.
	status, body, h := get(t, browser, address.String(), "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	if status != http.StatusOK || !strings.Contains(body, `content="0;url=./"`) {
		t.Fatalf("entering: %d %s", status, body)
	}
	cookie := h.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=" + address.Path} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie is %q, without %s", cookie, part)
		}
	}
	bare := *address
	bare.RawQuery = ""
	return browser, bare.String()
}

func TestWhoMayAsk(t *testing.T) {
	address := served(t, New(&fixed{overview: three()}))
	browser, below := entered(t, address)
	host := address.Host
	root := "http://" + host + "/"
	nobody := &http.Client{}
	port := address.Port()
	for _, c := range []struct {
		what    string
		client  *http.Client
		method  string
		address string
		headers []string
		want    int
	}{
		{"the reader", browser, "GET", below + "data", nil, http.StatusOK},
		{"the page", browser, "GET", below + "data", []string{"Origin", "http://" + host, "Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{"its files", browser, "GET", below + "main.js", nil, http.StatusOK},
		{"by another name of the loopback interface", nobody, "GET", address.String(), []string{"Host", "localhost:" + port}, http.StatusOK},
		{"at its IPv6 address", nobody, "GET", address.String(), []string{"Host", "[::1]:" + port}, http.StatusOK},
		{"through ssh -L", browser, "GET", below + "data", []string{"Host", "127.0.0.1:9999"}, http.StatusOK},
		{"another user of the machine", nobody, "GET", below + "data", nil, http.StatusUnauthorized},
		{"another user, its files", nobody, "GET", below + "main.js", nil, http.StatusUnauthorized},
		{"another user, at the root", nobody, "GET", root, nil, http.StatusUnauthorized},
		{"another key", nobody, "GET", below + "?key=AAAA", nil, http.StatusUnauthorized},
		{"the key at another path", nobody, "GET", root + "?" + address.RawQuery, nil, http.StatusUnauthorized},
		{"a cookie at another path", browser, "GET", root + "data", nil, http.StatusUnauthorized},
		{"an image with the key on another page", nobody, "GET", address.String(), []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, http.StatusForbidden},
		{"another origin", browser, "GET", below + "data", []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		{"another port of this machine", browser, "GET", below + "data", []string{"Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
		{"no origin at all", browser, "GET", below + "data", []string{"Origin", "null"}, http.StatusForbidden},
		{"another site", browser, "GET", below + "data", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"another port, by the browser's word", browser, "GET", below + "data", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{"a name that leads here", browser, "GET", below + "data", []string{"Host", "evil.example:" + port}, http.StatusForbidden},
		{"a name that leads here, with the key", nobody, "GET", address.String(), []string{"Host", "evil.example"}, http.StatusForbidden},
		{"a name that begins so", browser, "GET", below + "data", []string{"Host", "127.0.0.1.evil.example"}, http.StatusForbidden},
		{"who writes", browser, "POST", below + "data", nil, http.StatusMethodNotAllowed},
		{"who writes with the key", nobody, "POST", address.String(), nil, http.StatusMethodNotAllowed},
		{"who removes", browser, "DELETE", below + "data", nil, http.StatusMethodNotAllowed},
		{"who asks for options", browser, "OPTIONS", below + "data", nil, http.StatusMethodNotAllowed},
		{"something else", browser, "GET", below + "secret", nil, http.StatusNotFound},
		{"above its files", browser, "GET", below + "..%2fserver.go", nil, http.StatusNotFound},
		{"what nobody knows", browser, "GET", below + "ask?about=secrets", nil, http.StatusNotFound},
		{"a node that there is not", browser, "GET", below + "ask?about=pods&node=n9", nil, http.StatusNotFound},
	} {
		status, body, h := request(t, c.client, c.method, c.address, c.headers...)
		if status != c.want {
			t.Errorf("%s: %d %s, want %d", c.what, status, body, c.want)
		}
		if status != http.StatusOK && strings.Contains(body, "n1") {
			t.Errorf("%s is told %s", c.what, body)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", c.what, name, got, want)
			}
		}
		if got := h.Get("Cache-Control"); status == http.StatusOK && got != "no-store" {
			t.Errorf("%s: may be kept: Cache-Control is %q", c.what, got)
		}
	}
}

// Two servers have nothing in common by which who knows one gets into the other.
func TestKeysDiffer(t *testing.T) {
	one, other := newGuard(nil), newGuard(nil)
	if one.key == other.key || one.base == other.base || len(one.key) < 20 || len(one.base) < 20 {
		t.Errorf("%q %q, %q %q", one.base, one.key, other.base, other.key)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	l, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !isLoopback(l.Addr().String()) {
		t.Errorf("it listens at %s", l.Addr())
	}
	if _, err := Listen(-1); err == nil || !strings.Contains(err.Error(), "--port -1") {
		t.Error(err)
	}
}

// The policy of the page's content allows nothing inline, so its files have nothing.
func TestNothingInline(t *testing.T) {
	for _, file := range []string{"assets/index.html"} {
		text, err := assets.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"<style", "style=", "onclick", "onload", "javascript:", "http:", "https:"} {
			if strings.Contains(string(text), word) {
				t.Errorf("%s has %s", file, word)
			}
		}
	}
	entries, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := assets.ReadFile("assets/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "//cdn", "DOMParser"} {
			if strings.Contains(string(text), word) {
				t.Errorf("%s has %s: what others have named may be read as markup", e.Name(), word)
			}
		}
	}
}
