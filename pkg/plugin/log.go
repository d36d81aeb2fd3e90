package plugin

import (
	"io"
	"log/slog"
	"os"

	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// openLog returns a logger of lines with key=value to a file or to standard
// error; standard output belongs to the protocol. Where the file cannot be
// opened the lines go to standard error: no pod fails for a log.
func openLog(c netconf.Log) (*slog.Logger, func()) {
	level := slog.LevelError
	// The configuration has been validated: an unknown level cannot come here.
	_ = level.UnmarshalText([]byte(c.Level))
	var to io.Writer = os.Stderr
	closeLog := func() {}
	if c.File != "" {
		file, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			to, closeLog = file, func() { file.Close() }
		} else {
			defer func() { slog.New(slog.NewTextHandler(os.Stderr, nil)).Warn("opening log", "error", err) }()
		}
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: level})), closeLog
}
