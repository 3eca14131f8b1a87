package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"pinseal/pki"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// config is pinseal.toml. An unknown key or a bad value is an error with file, line and column.
type config struct {
	Node      name             `toml:"node"`
	GPIO      gpioConfig       `toml:"gpio"`
	Clock     clockConfig      `toml:"clock"`
	TLS       tlsConfig        `toml:"tls"`
	Agent     agentConfig      `toml:"agent"`
	Enrol     enrolConfig      `toml:"enrol"`
	Limits    limitsConfig     `toml:"limits"`
	Log       logConfig        `toml:"log"`
	Listeners []listenerConfig `toml:"listener"`
	Outputs   []outputConfig   `toml:"output"`
	Inputs    []inputConfig    `toml:"input"`
	Sensors   []sensorConfig   `toml:"sensor"`
	Batches   []batchConfig    `toml:"batch"`
	Outbox    outboxConfig     `toml:"outbox"`
	Permits   []permitConfig   `toml:"permit"`
	Telemetry []telemetryRule  `toml:"telemetry"`
	Legacy    []legacyConfig   `toml:"legacy"`
	Auth      authConfig       `toml:"auth"`
	Monitor   monitorConfig    `toml:"monitor"`
	Reload    reloadConfig     `toml:"reload"`
	Roles     []roleConfig     `toml:"role"`
	ACL       []aclRule        `toml:"acl"`
	Encrypt   []encryptRule    `toml:"encrypt"`

	Persistence   persistenceConfig   `toml:"persistence"`
	HomeAssistant homeAssistantConfig `toml:"homeassistant"`
	Entities      []entityConfig      `toml:"entity"`

	source source
	denied *pki.DenyList // nil denies nobody
}

// source is where a configuration was read from.
type source struct {
	path string
	data []byte
}

type gpioConfig struct {
	Chip string `toml:"chip"` // "auto", "sim", a label or a device path
}

type clockConfig struct {
	Trust clockTrust `toml:"trust"`
	Serve bool       `toml:"serve"` // tell others the time
	From  name       `toml:"from"`  // the node to ask for the time
}

// tlsConfig names the broker's certificate and the node's keys; unset ones are those that init made.
type tlsConfig struct {
	CA          string `toml:"ca"`
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	CRL         string `toml:"crl"` // revocation lists of the authorities in CA
}

type agentConfig struct {
	SignKey     string         `toml:"sign_key"`    // the key that seals verdicts
	Broker      brokerURL      `toml:"broker"`      // empty: the embedded broker
	Bundle      string         `toml:"bundle"`      // in the place of all others: what device add made
	CA          string         `toml:"ca"`          // for a broker elsewhere
	Certificate string         `toml:"certificate"` // for a broker elsewhere
	Key         string         `toml:"key"`         // for a broker elsewhere
	MaxAge      commandMaxAge  `toml:"max_age"`     // of a command
	Rate        perSecond      `toml:"rate"`        // messages a second and key
	Burst       limit          `toml:"burst"`       // messages a key may send at once
	Flush       positiveLength `toml:"flush"`       // how long numbers of accepted telemetry stay in memory
	Queue       limit          `toml:"queue"`       // messages that may wait on a topic
}

type logConfig struct {
	Level  logLevel  `toml:"level"`
	Format logFormat `toml:"format"`
}

type listenerConfig struct {
	Address            listenAddress `toml:"address"`
	TLS                *bool         `toml:"tls"` // nil: true, but for a Unix socket
	AllowPlain         bool          `toml:"allow_plain"`
	WebSocket          bool          `toml:"websocket"`
	Origins            []webOrigin   `toml:"origins"`
	MaxConnections     limit         `toml:"max_connections"`
	MinTLS             tlsVersion    `toml:"min_tls"`
	RequireCertificate *bool         `toml:"require_certificate"`      // nil: true
	CertificateIsName  *bool         `toml:"use_identity_as_username"` // nil: true
	AllowAnonymous     bool          `toml:"allow_anonymous"`
	ClientIDIsIdentity bool          `toml:"client_id_is_identity"`
}

type permitConfig struct {
	Signer  name           `toml:"signer"`
	Output  name           `toml:"output"`
	Actions []action       `toml:"actions"`
	MaxOn   positiveLength `toml:"max_on"`
}

type telemetryRule struct {
	Signer nameOrAll      `toml:"signer"`
	Topic  topicFilter    `toml:"topic"` // %u stands for the signer
	MaxAge positiveLength `toml:"max_age"`
}

type legacyConfig struct {
	Signer name       `toml:"signer"`
	Topic  topicName  `toml:"topic"`
	Hash   legacyHash `toml:"hash"`
}

// authConfig names what mosquitto has files for, and whose tokens are taken.
type authConfig struct {
	ACLFile      string      `toml:"acl_file"`
	PasswordFile string      `toml:"password_file"`
	Token        tokenConfig `toml:"token"`
}

type roleConfig struct {
	Name    name   `toml:"name"`
	Members []name `toml:"members"`
}

type aclRule struct {
	Identity  nameOrAll     `toml:"identity"`
	Role      name          `toml:"role"`
	MaxQoS    *qosLevel     `toml:"max_qos"`
	Publish   []topicFilter `toml:"publish"`
	Subscribe []topicFilter `toml:"subscribe"`
}

// readConfig reads and checks a configuration; paths in it are relative to its folder.
func readConfig(path string) (*config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, noConfiguration(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	cfg, err := parseConfig(data)
	if at, ok := errors.AsType[*positionError](err); ok {
		return nil, withHint(fmt.Errorf("%s:%w", path, at), "man pinseal.toml, or docs/configuration.md, explains every key")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	cfg.source = source{path, data}
	cfg.resolve(filepath.Dir(path))
	return cfg, cfg.takeBundle()
}

// noConfiguration says that there is no node.
func noConfiguration(path string) error {
	if _, err := os.Lstat(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // who knows whether there is one
		return fmt.Errorf("reading the configuration: %w", err)
	}
	return withHint(fmt.Errorf("no configuration at %s", path), "pinseal init makes one; --dir names its folder if it is elsewhere")
}

// positionError is a mistake at a place of the configuration, both counted from 1.
type positionError struct {
	line, column int
	message      string
}

func (e *positionError) Error() string { return fmt.Sprintf("%d:%d: %s", e.line, e.column, e.message) }

// decodeStrict reads TOML into a struct; whatever is wrong with it is a *positionError.
func decodeStrict(data []byte, to any) error {
	if err := checkLengths(data, reflect.TypeOf(to)); err != nil {
		return err
	}
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(to)
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := &missing.Errors[0]
		line, column := first.Position()
		return &positionError{line, column, fmt.Sprintf("unknown key %q", dotted(first.Key()))}
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := decode.Position()
		return &positionError{line, column, plainMessage(decode)}
	}
	if err != nil {
		return err
	}
	return checkValues(data, reflect.ValueOf(to).Elem(), place{})
}

func parseConfig(data []byte) (*config, error) {
	cfg := defaultConfig()
	if err := decodeStrict(data, cfg); err != nil {
		return nil, err
	}
	cfg.fillIn()
	if err := cfg.check(data); err != nil {
		return nil, err
	}
	return cfg, nil
}

// paths are the files that the configuration names.
func (c *config) paths() []*string {
	return []*string{
		&c.TLS.CA, &c.TLS.Certificate, &c.TLS.Key, &c.TLS.CRL, &c.Agent.SignKey, &c.Agent.CA, &c.Agent.Certificate, &c.Agent.Key, &c.Agent.Bundle, &c.Auth.ACLFile, &c.Auth.PasswordFile,
		&c.Auth.Token.CA, &c.Auth.Token.IntrospectionCredentials,
	}
}

// resolve makes every path absolute to the folder of the configuration.
func (c *config) resolve(dir string) {
	for _, path := range c.paths() {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if keys := &c.Auth.Token.JWKS; *keys != "" && !keys.isURL() && !filepath.IsAbs(string(*keys)) {
		*keys = keysAddress(filepath.Join(dir, string(*keys)))
	}
	for i := range c.Sensors {
		if path := &c.Sensors[i].Path; *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// checkValues asks every value that was written whether it can be what it is, p being where v stands.
func checkValues(data []byte, v reflect.Value, p place) error {
	if c, ok := reflect.TypeAssert[checker](v); ok && !v.IsZero() {
		if err := c.check(); err != nil {
			return at(data, p, "%w", err)
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		for field, value := range v.Fields() {
			if !field.IsExported() {
				continue
			}
			key := field.Tag.Get("toml")
			inner := place{p.table, p.index, key}
			if kind := value.Kind(); kind == reflect.Struct || kind == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct {
				inner = place{table: key}
			}
			if err := checkValues(data, value, inner); err != nil {
				return err
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if v.Type().Elem().Kind() == reflect.Struct {
				p.index = i
			}
			if err := checkValues(data, v.Index(i), p); err != nil {
				return err
			}
		}
	default:
	}
	return nil
}

// place is where a key stands: table "" is the top, index counts the tables of that name from 0.
type place struct {
	table string
	index int
	key   string
}

// at makes an error that points at a key of the document, or at its table where the key is missing.
func at(data []byte, p place, format string, args ...any) error {
	line, column := locate(data, p)
	return &positionError{line, column, fmt.Errorf(format, args...).Error()}
}

// locate finds a key's value by walking the document once more: the decoder does not tell where a good value stood.
func locate(data []byte, p place) (line, column int) {
	var parser unstable.Parser
	parser.Reset(data)
	table, index := "", -1
	line, column = 1, 1
	for parser.NextExpression() {
		e := parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			key := lastKey(e)
			table = string(key.Data)
			if table == p.table {
				index++
			}
			if table == p.table && index == max(p.index, 0) {
				line, column = start(&parser, key)
			}
		case unstable.KeyValue:
			here := table == p.table && (p.table == "" || index == p.index)
			if key := lastKey(e); here && string(key.Data) == p.key {
				if value := e.Value(); value.Raw.Length > 0 {
					return start(&parser, value)
				}
				return start(&parser, key)
			}
		default: // comments
		}
	}
	return line, column
}

func lastKey(e *unstable.Node) *unstable.Node {
	var last *unstable.Node
	for keys := e.Key(); keys.Next(); {
		last = keys.Node()
	}
	return last
}

func start(p *unstable.Parser, n *unstable.Node) (line, column int) {
	shape := p.Shape(n.Raw)
	return shape.Start.Line, shape.Start.Column
}
