package agent

import (
	"context"
	"fmt"
	"log/slog"
)

// recorded is a log as short lines: of problems their object, reason and number of
// consequences.
type recorded []string

func (*recorded) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorded) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *recorded) WithGroup(string) slog.Handler          { return r }

func (r *recorded) Handle(_ context.Context, line slog.Record) error {
	values := map[string]slog.Value{}
	line.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value
		return true
	})
	text := line.Message
	switch text {
	case "problem":
		text = fmt.Sprintf("problem %s %s %s", values["object"], values["reason"], values["consequences"])
	case "problem is over":
		text = "over " + values["problem"].String()
	}
	*r = append(*r, text)
	return nil
}
