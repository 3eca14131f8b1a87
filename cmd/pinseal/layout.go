package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"pinseal/signing/replay"
)

// layout says where a node's files are.
type layout struct {
	config  string // pinseal.toml
	signers string // public signing keys
	state   string // pki/, keys/, bundles/, state.db, state.log, broker.db
	run     string // control socket, simulated lines
}

// layoutUnder is everything under one folder, for trying out and for tests; without a folder, the system's places.
func layoutUnder(dir string) layout {
	if dir == "" {
		return layout{
			config:  "/etc/pinseal/pinseal.toml",
			signers: "/etc/pinseal/signers",
			state:   "/var/lib/pinseal",
			run:     "/run/pinseal",
		}
	}
	return layout{
		config:  filepath.Join(dir, "pinseal.toml"),
		signers: filepath.Join(dir, "signers"),
		state:   dir,
		run:     filepath.Join(dir, "run"),
	}
}

func (l layout) caCert() string           { return filepath.Join(l.state, "pki", "ca.crt") }
func (l layout) caOldKey() string         { return filepath.Join(l.state, "pki", "ca-old.key") }
func (l layout) caRequest() string        { return filepath.Join(l.state, "pki", "ca.csr") }
func (l layout) caCross() string          { return filepath.Join(l.state, "pki", "cross.crt") }
func (l layout) caCrossOld() string       { return filepath.Join(l.state, "pki", "cross-old.crt") }
func (l layout) caNextKey() string        { return filepath.Join(l.state, "pki", "ca-next.key") }
func (l layout) caKey() string            { return filepath.Join(l.state, "pki", "ca.key") }
func (l layout) denied() string           { return filepath.Join(l.state, "pki", "denied") }
func (l layout) crl() string              { return filepath.Join(l.state, "pki", "ca.crl") }
func (l layout) joined() string           { return filepath.Join(l.state, "signers") } // of devices that joined
func (l layout) joinedRecipients() string { return filepath.Join(l.state, "recipients") }
func (l layout) codes() string            { return filepath.Join(l.state, "codes") }
func (l layout) tokens() string           { return filepath.Join(filepath.Dir(l.config), "tokens") }
func (l layout) journal() string          { return filepath.Join(l.state, "journal") }
func (l layout) signKey() string          { return filepath.Join(l.state, "keys", "sign.key") }
func (l layout) stateDB() string          { return filepath.Join(l.state, "state.db") }
func (l layout) stateLog() string         { return replay.LogPath(l.stateDB()) }
func (l layout) outputs() string          { return filepath.Join(l.state, "outputs") }
func (l layout) brokerDB() string         { return filepath.Join(l.state, "broker.db") }
func (l layout) clockFloor() string       { return filepath.Join(l.state, "clock") }
func (l layout) bundles() string          { return filepath.Join(l.state, "bundles") }
func (l layout) lines() string            { return filepath.Join(l.run, "lines") }
func (l layout) control() string          { return filepath.Join(l.run, "control.sock") }

// rotating reports whether the authority before this one is still trusted.
func (l layout) rotating() bool { return exists(l.caOldKey()) }

// brokerCert is the certificate that init wrote, or the one that has taken its place: the service may not write into pki/.
func (l layout) brokerCert() string { return filepath.Join(l.brokerFolder(), "broker.crt") }
func (l layout) brokerKey() string  { return filepath.Join(l.brokerFolder(), "broker.key") }

func (l layout) brokerFolder() string {
	if own := filepath.Dir(l.signKey()); exists(filepath.Join(own, "broker.crt")) {
		return own
	}
	return filepath.Dir(l.caCert())
}

// dirFlag is the --dir of every command that works on a node's files.
type dirFlag struct {
	Dir string `help:"Keep everything under this folder instead of /etc/pinseal, /var/lib/pinseal and /run/pinseal." type:"path" placeholder:"DIR"`
}

func (f dirFlag) layout() layout { return layoutUnder(f.Dir) }

// placed is the layout of the node that is configured there, whose signers may be those of its bundle.
func (f dirFlag) placed() layout {
	l := f.layout()
	if cfg, err := readConfig(l.config); err == nil { // of a mistake in it who needs the rest of it tells
		l = cfg.place(l)
	}
	return l
}

// command gives the shell words that name this node again, for "next" lines and hints.
func (f dirFlag) command(words string) string {
	if f.Dir == "" {
		return "pinseal " + words
	}
	return "pinseal " + words + " --dir " + shellWord(f.Dir)
}

// shellWord is a path or a topic as it is typed: what a shell would take apart stands between quotes.
func shellWord(text string) string {
	if text != "" && strings.IndexFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+,:=@%", r)
	}) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// sequenceFile is where the numbers used by a signing key are kept.
func sequenceFile(signKey string) string { return signKey + ".seq" }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// filesIn finds what a pattern names in a folder, whose own name is no pattern: people put brackets into names of folders.
func filesIn(folder, pattern string) ([]string, error) {
	found, err := fs.Glob(os.DirFS(folder), pattern)
	for i, name := range found {
		found[i] = filepath.Join(folder, name)
	}
	return found, err
}

func (l layout) bundle(client string) string { return filepath.Join(l.bundles(), client) }

// signer is where a signer's keys are: where the operator put them, or the node itself when the device joined.
func (l layout) signer(client string) string {
	path, joined := filepath.Join(l.signers, client+".pem"), filepath.Join(l.joined(), client+".pem")
	if !exists(path) && exists(joined) {
		return joined
	}
	return path
}

// withConfig is the layout with another configuration; signers/ lies beside it.
func (l layout) withConfig(path string) layout {
	l.config = path
	l.signers = filepath.Join(filepath.Dir(path), "signers")
	return l
}
