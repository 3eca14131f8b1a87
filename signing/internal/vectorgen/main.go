// Command vectorgen writes the test vectors of the sealed message. It is run by
// go generate in the package signing; a test there fails when the vectors are
// not what it makes.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"pinseal/signing/internal/vectors"
)

func main() {
	dir := flag.String("dir", "testdata", "folder of the vectors")
	flag.Parse()
	if err := write(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "vectorgen:", err)
		os.Exit(1) //nolint:forbidigo // a command of its own
	}
}

// write replaces the generated folders, so that a vector that is gone from the
// generator is gone from them.
func write(dir string) error {
	files, err := vectors.Generate()
	if err != nil {
		return err
	}
	for _, folder := range []string{"signers", "vectors"} {
		if err := os.RemoveAll(filepath.Join(dir, folder)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o750); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
