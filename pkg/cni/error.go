package cni

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/containernetworking/cni/pkg/types"
)

// CodeTryAgain tells the runtime to repeat the call (SPEC.md, section "Error").
const CodeTryAgain = types.ErrTryAgainLater

// Error codes of flatnet's own; the specification reserves 0 to 99 (SPEC.md,
// section "Error"). docs/operations.md says what to do at each.
const (
	CodeKernel      uint = 100 // the kernel refused a change
	CodeExhausted   uint = 101 // no address is left
	CodeCheck       uint = 102 // CHECK found a difference
	CodeExists      uint = 103 // the attachment, or its interface, exists already
	CodeUnavailable uint = 104 // a requested address cannot be had
	CodeState       uint = 105 // a file of the state cannot be written or read
	CodeDelegate    uint = 106 // another IPAM plugin could not be run
)

// Fail makes an error with a code. The message says what happened, the details
// say what to do about it.
func Fail(code uint, message, details string) error {
	return types.NewError(code, message, details)
}

// Wrap makes an error of another one, with a code. An error that has a code
// already, or is made of one that has, keeps it; nil stays nil.
func Wrap(code uint, err error, details string) error {
	var typed *types.Error
	if err == nil || errors.As(err, &typed) {
		return err
	}
	return types.NewError(code, err.Error(), details)
}

// Code returns the code of an error, 999 where it has none.
func Code(err error) uint {
	var typed *types.Error
	if errors.As(err, &typed) {
		return typed.Code
	}
	return types.ErrInternal
}

// document is the specification's Error object. The library's own type lacks
// cniVersion.
type document struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Message    string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

// Texts returns an error's message and details apart.
func Texts(err error) (message, details string) {
	if typed, is := err.(*types.Error); is {
		return typed.Msg, typed.Details
	}
	return err.Error(), ""
}

func printError(w io.Writer, version string, err error) {
	d := document{CNIVersion: version, Code: Code(err)}
	d.Message, d.Details = Texts(err)
	raw, encodeErr := json.MarshalIndent(d, "", "    ")
	if encodeErr != nil {
		raw = []byte(`{"code": 999, "msg": "encoding error"}`)
	}
	w.Write(append(raw, '\n'))
}
