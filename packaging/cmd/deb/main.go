// Command deb writes what nfpm.yaml describes as a Debian package, with the variables of the
// environment filled in; build.sh calls it. It is a module apart, because nobody who builds pinseal
// should need nfpm. Of nfpm only the deb format is compiled in: the others bring their own libraries.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
)

func main() {
	folder := flag.String("out", ".", "folder for the package")
	flag.Parse()
	path, err := build(*folder)
	if err != nil {
		fmt.Fprintf(os.Stderr, "deb: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// build writes the package into the folder and gives its path. What nfpm dates itself it dates by
// SOURCE_DATE_EPOCH, so that the same sources make the same bytes.
func build(folder string) (_ string, err error) {
	config, err := nfpm.ParseFileWithEnvMapping("nfpm.yaml", os.Getenv)
	if err != nil {
		return "", fmt.Errorf("reading nfpm.yaml: %w", err)
	}
	info := nfpm.WithDefaults(&config.Info)
	if info.MTime.IsZero() {
		return "", fmt.Errorf("SOURCE_DATE_EPOCH is not set")
	}
	path := filepath.Join(folder, deb.Default.ConventionalFileName(info))
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := deb.Default.Package(info, file); err != nil {
		return "", fmt.Errorf("writing %s: %w", path, err)
	}
	return path, file.Close()
}
