package flash

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// What the ways over the boot partition put there.
const (
	setupArchive = "pinseal-setup.tgz"
	setupScript  = "pinseal-setup.sh"
)

//go:embed setup.sh
var setupTemplate string

// setupFiles are the archive of the files to install and the script that installs it on first boot.
func setupFiles(payload []File, host string, at time.Time) ([]File, error) {
	archive, err := pack(payload, at)
	if err != nil {
		return nil, fmt.Errorf("packing the archive: %w", err)
	}
	sum := sha256.Sum256(archive)
	script := strings.NewReplacer("@HOST@", host, "@SUM@", hex.EncodeToString(sum[:])).Replace(setupTemplate)
	return []File{
		{Path: setupArchive, Mode: 0o600, Data: archive},
		{Path: setupScript, Mode: 0o755, Data: []byte(script)},
	}, nil
}

// pack makes a tar archive in which everything is root's.
func pack(files []File, at time.Time) ([]byte, error) {
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	packed := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Data)), ModTime: at}
		switch {
		case f.Link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
		case f.Mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, f.Path+"/"
		}
		if err := packed.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := packed.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}
