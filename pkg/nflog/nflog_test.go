package nflog

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// What a rule logs is told, with its ports, in both families; packets of IPv6 with
// extension headers and fragments too.
func TestLogged(t *testing.T) {
	lab := netlab.Start(t)
	space := lab.Namespace("log")
	rules := "table inet t {\nchain c {\ntype filter hook output priority 0\nudp dport 4321 log prefix \"seen\" group 70\n}\n}\n"
	if err := space.Run(exec.Command("nft", rules)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"127.0.0.1", "::1"} {
		ctx, cancel := context.WithCancel(t.Context())
		told, ended := make(chan Packet, 16), make(chan error, 1)
		go func() {
			ended <- space.Do(func() error {
				return Run(ctx, 70, func(p Packet) {
					select {
					case told <- p:
					default:
					}
				})
			})
		}()
		to := netip.AddrPortFrom(netip.MustParseAddr(at), 4321)
		// Who listens does not say since when: it is sent until it is told.
		for done := false; !done; {
			err := space.Do(func() error {
				c, err := net.Dial("udp", to.String())
				if err == nil {
					defer c.Close()
					_, err = fmt.Fprint(c, "hello")
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case p := <-told:
				if p.Destination != to || p.Source.Addr() != to.Addr() || p.Source.Port() == 0 || p.Prefix != "seen" || p.Protocol != 17 {
					t.Errorf("told of %+v", p)
				}
				done = true
			case err := <-ended:
				t.Fatalf("it ended: %v", err)
			default:
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestParse(t *testing.T) {
	four := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80}
	fragment := append([]byte(nil), four...)
	fragment[7] = 1
	six := append([]byte{0x60, 0, 0, 0, 0, 24, 60, 64}, make([]byte, 32)...)
	copy(six[8:], netip.MustParseAddr("fd00::1").AsSlice())
	copy(six[24:], netip.MustParseAddr("fd00::2").AsSlice())
	extended := append(append([]byte(nil), six...), 44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 1, 0x9c, 0x40, 0, 53)
	later := append([]byte(nil), extended...)
	later[40+8+2], later[40+8+3] = 0, 8
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"TCP":                     {four, "6 10.0.0.1:40000 10.0.0.2:80"},
		"fragment":                {fragment, "6 10.0.0.1:0 10.0.0.2:0"},
		"cut off":                 {four[:20], "6 10.0.0.1:0 10.0.0.2:0"},
		"IPv6 with extensions":    {extended, "17 [fd00::1]:40000 [fd00::2]:53"},
		"a later fragment":        {later, "17 [fd00::1]:0 [fd00::2]:0"},
		"extensions are cut off":  {extended[:44], "60 [fd00::1]:0 [fd00::2]:0"},
		"nothing":                 {nil, ""},
		"half of a header":        {four[:10], ""},
		"neither of the families": {[]byte{0x55, 1, 2, 3}, ""},
	} {
		var p Packet
		got := ""
		if p.parse(c.raw) {
			got = fmt.Sprint(p.Protocol, " ", p.Source, " ", p.Destination)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if _, ok := parse([]byte{1}); ok {
		t.Error("a message that is too short is a packet")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x60, 0, 0, 0, 0, 24, 60, 64})
	f.Fuzz(func(_ *testing.T, raw []byte) {
		parse(raw)
		var p Packet
		p.parse(raw)
	})
}
