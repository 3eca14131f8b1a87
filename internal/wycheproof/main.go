// Command wycheproof judges package signing by Project Wycheproof's vectors:
// ECDSA on P-256 and secp256k1 with signatures as r‖s (IEEE P1363), and JWS.
// It prints one line with how many there were and how many went wrong, before
// it one line for each of those, and exits with 1 if there were any.
//
// A vector says "valid" or "invalid" in the sense of its own specification.
// Where the sealed message demands something else, the tables in this package
// say what and why.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/c2sp/wycheproof"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wycheproof:", err)
		os.Exit(1) //nolint:forbidigo // this is the main of a program
	}
}

func run(out io.Writer) error {
	r, err := judge(wycheproof.TestVectors, verifyDigest)
	if err != nil {
		return err
	}
	for _, line := range r.wrong {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "wycheproof: %d vectors, %d wrong\n", r.vectors, len(r.wrong))
	if len(r.wrong) > 0 {
		return errors.New("package signing does not agree with the vectors")
	}
	return nil
}

// report is what was found.
type report struct {
	vectors int
	wrong   []string // a line for each vector that went wrong
}

// add counts a vector; problem is nil where it went as it should.
func (r *report) add(file string, id int, comment string, problem error) {
	r.vectors++
	if problem != nil {
		r.wrong = append(r.wrong, fmt.Sprintf("%s %d (%s): %v", file, id, comment, problem))
	}
}

// judge runs all vectors. Its tests give it verifiers that are wrong.
func judge(vectors fs.FS, verify verifier) (*report, error) {
	r := new(report)
	if err := r.judgeECDSA(vectors, verify); err != nil {
		return nil, err
	}
	return r, r.judgeJWS(vectors, verify)
}

// read reads a file of vectors, and makes sure that it holds as many as it says.
func read[G interface{ size() int }](vectors fs.FS, file string) ([]G, error) {
	data, err := fs.ReadFile(vectors, file)
	if err != nil {
		return nil, fmt.Errorf("reading vectors: %w", err)
	}
	var content struct {
		NumberOfTests int `json:"numberOfTests"`
		TestGroups    []G `json:"testGroups"`
	}
	if err := json.Unmarshal(data, &content); err != nil {
		return nil, fmt.Errorf("reading vectors %s: %w", file, err)
	}
	n := 0
	for _, g := range content.TestGroups {
		n += g.size()
	}
	if n == 0 || n != content.NumberOfTests {
		return nil, fmt.Errorf("reading vectors %s: %d of %d", file, n, content.NumberOfTests)
	}
	return content.TestGroups, nil
}

// valid turns the vectors' word into a decision. The third word, "acceptable",
// occurs in none of these files; it would need one of us to decide.
func valid(result string) (bool, error) {
	switch result {
	case "valid":
		return true, nil
	case "invalid":
		return false, nil
	}
	return false, errors.New("no decision about the result " + result)
}
