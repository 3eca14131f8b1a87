package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// An authority has a name of at most 64 characters, and so has a node: its authority can be made and replaced all the same.
func TestAuthoritiesOfLongNames(t *testing.T) {
	t.Parallel()
	node := strings.Repeat("n", 64)
	y := &years{t: t, dir: t.TempDir()}
	y.do("init", "--dir", y.dir, "--node", node, "--chip", "sim", "--listen", y.freeAddress())
	for range 2 {
		y.do("ca", "rotate", "--dir", y.dir)
		y.do("ca", "renew", "--dir", y.dir)
		y.do("ca", "retire", "--force", "--dir", y.dir)
		y.pass(1)
	}
	elsewhere := filepath.Join(y.dir, "elsewhere")
	y.do("init", "--authority", "elsewhere", "--dir", elsewhere, "--node", node, "--chip", "sim")
}
