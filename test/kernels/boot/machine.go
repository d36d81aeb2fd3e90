// Package boot runs a machine with a kernel of one's choice, in qemu's software
// emulation: it needs no hardware's help and no privileges, and takes about ten
// times the time.
//
// What a machine has to say goes to a port of its own, apart from the kernel's
// log: the machine's program writes to the device that [Machine.Port] names.
//
//	machine := boot.Machine{Architecture: "amd64", Kernel: image, Initrd: root}
//	err := machine.Run(ctx, func(line string) (done bool) { … })
package boot

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Machine is what is to be booted.
type Machine struct {
	Architecture string   // Go's name for it: "amd64" or "arm64"
	Kernel       string   // path of the image
	Initrd       string   // path of the initramfs; "" for none
	Disks        []string // paths of raw images: /dev/vda, /dev/vdb, … where the kernel has virtio_blk
	Parameters   string   // more of the kernel's command line
	Options      []string // more of the emulator's, for example network cards
	CPUs         int      // 0 means 2
	Memory       int      // MiB; 0 means 2048
	Accelerator  string   // qemu's -accel; "" for software emulation
	// Console gets the kernel's log, and everything else that the machine
	// prints; nil for nobody.
	Console io.Writer
}

// architecture is what differs between them.
type architecture struct {
	program   string
	options   []string
	console   string // the kernel's name of the first serial port
	port      string // the device of the second
	transport []string
}

var architectures = map[string]architecture{
	"amd64": {
		program: "qemu-system-x86_64",
		// The cpu "max" has instructions that programs choose and that emulation is slow at.
		options: []string{"-M", "pc", "-cpu", "Nehalem"},
		console: "ttyS0", port: "/dev/ttyS1",
		transport: []string{"-device", "isa-serial,chardev=results"},
	},
	"arm64": {
		// The cpu "max" signs pointers, which emulation spends half its time with.
		program: "qemu-system-aarch64",
		options: []string{"-M", "virt,gic-version=3", "-cpu", "cortex-a57"},
		console: "ttyAMA0", port: "/dev/vport0p1", // there once virtio_console is loaded
		transport: []string{"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=results"},
	},
}

// Program is the emulator for an architecture.
func Program(architecture string) (string, error) {
	a, known := architectures[architecture]
	if !known {
		return "", fmt.Errorf("no emulator is known for %s", architecture)
	}
	return a.program, nil
}

// Port is the device that the machine's own results are written to, a line each.
func (m *Machine) Port() string { return architectures[m.Architecture].port }

// Run boots the machine and calls result with every line of its results, until
// one is the last, the machine powers itself off, or ctx ends. Fails, with the
// end of the kernel's log, if no line was the last one.
func (m *Machine) Run(ctx context.Context, result func(line string) (last bool)) error {
	a, known := architectures[m.Architecture]
	if !known {
		return fmt.Errorf("booting a machine: no emulator is known for %s", m.Architecture)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(running, a.program, m.arguments(a)...)
	// The emulator must not outlive its caller, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	tail := &tail{next: m.Console}
	consoleRead, consoleWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer consoleRead.Close()
	cmd.ExtraFiles = []*os.File{consoleWrite} // descriptor 3, as in arguments
	cmd.Stderr = tail
	results, err := cmd.StdoutPipe()
	if err != nil {
		return errors.Join(err, consoleWrite.Close())
	}
	// The end of its input is, to a port of virtio, that nobody listens: the machine
	// would wait with its results for ever.
	input, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(err, consoleWrite.Close())
	}
	defer input.Close()
	err = cmd.Start()
	consoleWrite.Close()
	if err != nil {
		return fmt.Errorf("booting a machine: %w", err)
	}
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(tail, consoleRead) })
	done := false
	lines := bufio.NewScanner(results)
	lines.Buffer(nil, 16<<20) // a test's message may be a whole ruleset
	for !done && lines.Scan() {
		done = result(strings.TrimRight(lines.Text(), "\r"))
	}
	if done {
		stop()
	}
	_, _ = io.Copy(io.Discard, results)
	err = cmd.Wait()
	copying.Wait()
	switch {
	case done:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("running a machine: %w; its console's end:\n%s", context.Cause(ctx), tail)
	case err != nil:
		return fmt.Errorf("running a machine: %w; its console's end:\n%s", err, tail)
	}
	return fmt.Errorf("running a machine: it ended before its results did; its console's end:\n%s", tail)
}

func (m *Machine) arguments(a architecture) []string {
	cpus, memory, accelerator := m.CPUs, m.Memory, m.Accelerator
	if cpus == 0 {
		cpus = 2
	}
	if memory == 0 {
		memory = 2048
	}
	if accelerator == "" {
		// Processors in threads of their own trip over instructions that the kernel is replacing
		// (static keys, "Oops: int3"): qemu before 8.1 may go on with an old translation. In
		// turns they do not, and of two machines on two processors each has one anyway.
		accelerator = "tcg,thread=single"
	}
	// A machine that cannot go on ends at once: panic=-1 with -no-reboot.
	line := "console=" + a.console + " panic=-1 mitigations=off " + m.Parameters
	all := append([]string{
		"-accel", accelerator, "-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(memory),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", m.Kernel, "-append", strings.TrimSpace(line),
		"-chardev", "file,id=console,path=/dev/fd/3", "-serial", "chardev:console",
		"-chardev", "stdio,id=results,signal=off",
	}, a.options...)
	all = append(all, a.transport...)
	if m.Initrd != "" {
		all = append(all, "-initrd", m.Initrd)
	}
	for _, disk := range m.Disks {
		all = append(all, "-drive", "if=virtio,format=raw,file="+disk)
	}
	all = append(all, m.Options...)
	return all
}

// tail keeps the end of what passes through.
type tail struct {
	next io.Writer
	mu   sync.Mutex
	end  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const enough = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if len(t.end) > enough {
		t.end = append([]byte(nil), t.end[len(t.end)-enough:]...)
	}
	if t.next != nil {
		_, _ = t.next.Write(p) // it is for looking at only
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ReplaceAll(t.end, []byte("\r"), nil))
}
