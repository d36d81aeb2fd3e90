// Package page has what pages of benchmarks consist of, whoever measures:
// tables, explanations that are kept, and the machine that the figures are of.
package page

import (
	"strings"
	"unicode/utf8"
)

// Table is one in Markdown, padded to be read as it is; the first column is
// text and the others are figures. No row is longer than the head.
func Table(head []string, rows [][]string) string {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 2)
		}
	}
	var text strings.Builder
	line := func(cells []string) {
		for i, cell := range cells {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString("| " + cell + space + " |")
			} else {
				text.WriteString(" " + space + cell + " |")
			}
		}
		text.WriteString("\n")
	}
	line(head)
	for i, width := range widths {
		if i == 0 {
			text.WriteString("|" + strings.Repeat("-", width+2) + "|")
		} else {
			text.WriteString(strings.Repeat("-", width+1) + ":|")
		}
	}
	text.WriteString("\n")
	for _, row := range rows {
		line(row)
	}
	return text.String()
}
