// Command managers boots a Debian with systemd in an emulated machine, lets it be
// a node with flatnetd and pods, and starts, restarts and reloads the programs that
// manage the network of real nodes: what becomes of connections, new and established
// ones, and within what time everything is right again.
//
//	make managers
//	make managers MANAGERS="-run firewalld"
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/flatnet-cni/flatnet/test/binaries"
	"github.com/flatnet-cni/flatnet/test/kernels/boot"
	"github.com/flatnet-cni/flatnet/test/reference"
)

func main() {
	guest := flag.Bool("guest", false, "run inside of the machine; not for people")
	run := flag.String("run", "", "only rows whose names match this regular expression")
	cache := flag.String("cache", cacheDirectory(), "where Debian is kept; some 3 GB")
	programs := flag.String("binaries", "", "directory of flatnetd and plugins; empty: they are built")
	logs := flag.String("logs", "", "directory for the logs of the machine and its flatnetd")
	flag.Parse()
	if *guest {
		runGuest()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := runHost(ctx, *run, *cache, *programs, *logs); err != nil {
		fmt.Fprintln(os.Stderr, "managers:", err)
		os.Exit(1)
	}
}

func cacheDirectory() string {
	if directory := os.Getenv("FLATNET_KERNELS"); directory != "" {
		return directory
	}
	return "/var/tmp/flatnet-kernels"
}

func runHost(ctx context.Context, only, cache, programs, logs string) error {
	if _, err := regexp.Compile(only); err != nil {
		return fmt.Errorf("reading -run: %w", err)
	}
	if programs == "" {
		var err error
		if programs, err = binaries.Build(); err != nil {
			return err
		}
	}
	image, err := makeImage(ctx, cache)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	root, second := filepath.Join(work, "root.ext4"), filepath.Join(work, "flatnet.ext4")
	if err := run(ctx, "cp", "--sparse=always", filepath.Join(image, "root.ext4"), root); err != nil {
		return err
	}
	if err := secondDisk(ctx, second, filepath.Join(work, "flatnet"), programs, only); err != nil {
		return err
	}
	console := io.Discard
	if logs != "" {
		if err := os.MkdirAll(logs, 0o755); err != nil {
			return err
		}
		file, err := os.Create(filepath.Join(logs, "console"))
		if err != nil {
			return err
		}
		defer file.Close()
		console = file
	}
	machine := boot.Machine{
		Architecture: "amd64", Kernel: filepath.Join(image, "vmlinuz"), Initrd: filepath.Join(image, "initrd"),
		Disks: []string{root, second}, Console: console, Parameters: "root=/dev/vda rw quiet net.ifnames=0 systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service",
		// Two network cards at one hub, so that one end can be the machine's own.
		Options: []string{
			"-netdev", "hubport,hubid=0,id=own", "-device", "virtio-net-pci,netdev=own",
			"-netdev", "hubport,hubid=0,id=others", "-device", "virtio-net-pci,netdev=others",
		},
	}
	begin := time.Now()
	failed := 0
	for boots := 0; ; boots++ {
		again := false
		err := machine.Run(ctx, func(line string) bool {
			var r Report
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				fmt.Println(line) // something to read
				return false
			}
			if r.Row != "" {
				fmt.Print(r.String())
			}
			if r.Error != "" {
				failed++
			}
			again = r.Reboot
			return r.End
		})
		if logs != "" {
			// What the guest has written to the second disk.
			for _, name := range []string{"n1.log", "n2.log", "n3.log"} {
				_ = run(ctx, "debugfs", "-R", "dump "+name+" "+filepath.Join(logs, name), second)
			}
		}
		// A machine that boots again ends the emulator before there is a last line.
		if err != nil && !again {
			return err
		}
		if !again || boots > 0 {
			break
		}
	}
	fmt.Printf("took %s\n", time.Since(begin).Round(time.Second))
	if failed > 0 {
		return fmt.Errorf("%d rows are not as they should be", failed)
	}
	return nil
}

// secondDisk makes the disk with what is tried and this program.
func secondDisk(ctx context.Context, image, directory, programs, only string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"flatnetd", "flatnet", "flatnet-ipam"} {
		if err := run(ctx, "cp", filepath.Join(programs, name), directory); err != nil {
			return err
		}
	}
	root, err := reference.Repository()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(directory, "managers"), "./test/kernels/managers")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building this program for the machine: %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := os.WriteFile(filepath.Join(directory, "run"), []byte(strings.TrimSpace(only)), 0o644); err != nil {
		return err
	}
	return makeDisk(ctx, image, "600M", directory)
}
