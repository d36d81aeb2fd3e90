package kubectl

import (
	"context"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// openBrowser opens an address that nobody else may see. Arguments of programs are for
// everybody on a machine, so the browser is given a file that leads there and that only
// its owner may read; remove removes it.
func openBrowser(ctx context.Context, address string) (remove func(), err error) {
	directory, err := os.MkdirTemp("", "flatnet-ui-") // with mode 0700
	if err != nil {
		return nil, fmt.Errorf("making a directory for the browser: %w", err)
	}
	remove = func() { os.RemoveAll(directory) }
	file := filepath.Join(directory, "flatnet.html")
	text := fmt.Sprintf(`<!doctype html><meta charset="utf-8"><title>flatnet</title><meta http-equiv="refresh" content="0;url=%[1]s"><a href="%[1]s">flatnet</a>`, html.EscapeString(address))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		remove()
		return nil, fmt.Errorf("writing what the browser opens: %w", err)
	}
	name, arguments := "xdg-open", []string{file}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, arguments = "rundll32", []string{"url.dll,FileProtocolHandler", file}
	}
	command := exec.CommandContext(ctx, name, arguments...)
	if err := command.Start(); err != nil {
		remove()
		return nil, fmt.Errorf("opening a browser: %w: open the address yourself", err)
	}
	go func() { _ = command.Wait() }() // how it ends is seen
	return remove, nil
}
