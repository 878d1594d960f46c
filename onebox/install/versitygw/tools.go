//go:build tools

// Package tools pins the S3 gateway that stands in for S3 on one machine.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
