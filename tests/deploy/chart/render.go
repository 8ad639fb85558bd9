// Renders a chart as Helm does, with what Helm is made of: Go's templates, Sprig's functions, and the same check of values.
//
// usage: render CHART NAMESPACE < values.yaml
//
// Helm itself is in no Debian release. What is here is the part of its engine that the chart of deploy/helm needs: values merged
// over those of the chart and held to its schema; .Values, .Chart, .Release and .Files; include, toYaml and fromYaml, which go
// through JSON as Helm's do. Definitions (crds/) come first.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/xeipuuv/gojsonschema"
	"gopkg.in/yaml.v3"
)

type object = map[string]interface{}

// files is .Files.
type files map[string][]byte

// Get is the content of a file; of one that is not there, nothing.
func (f files) Get(name string) string { return string(f[name]) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// parsed is YAML with the types of JSON.
func parsed(text []byte) (object, error) {
	var read, value object
	if err := yaml.Unmarshal(text, &read); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(read)
	if err == nil {
		err = json.Unmarshal(encoded, &value)
	}
	return value, err
}

func toYaml(value interface{}) (string, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	var read interface{}
	if err := yaml.Unmarshal(encoded, &read); err != nil {
		return "", err
	}
	text, err := yaml.Marshal(read)
	return strings.TrimSuffix(string(text), "\n"), err
}

// merged is base with what over says otherwise; null takes a value away.
func merged(base, over object) object {
	result := object{}
	for name, value := range base {
		result[name] = value
	}
	for name, value := range over {
		inner, both := result[name].(object)
		outer, maps := value.(object)
		switch {
		case value == nil:
			delete(result, name)
		case both && maps:
			result[name] = merged(inner, outer)
		default:
			result[name] = value
		}
	}
	return result
}

// load is every file of the chart by its path, links followed.
func load(chart, folder string, into files) {
	entries, err := os.ReadDir(filepath.Join(chart, folder))
	check(err)
	for _, entry := range entries {
		name := filepath.Join(folder, entry.Name())
		info, err := os.Stat(filepath.Join(chart, name))
		check(err)
		if info.IsDir() {
			load(chart, name, into)
			continue
		}
		into[name], err = os.ReadFile(filepath.Join(chart, name))
		check(err)
	}
}

func validate(schema []byte, values object) {
	result, err := gojsonschema.Validate(gojsonschema.NewBytesLoader(schema), gojsonschema.NewGoLoader(values))
	check(err)
	if !result.Valid() {
		log.Fatal("values don't meet the specifications of the schema: ", result.Errors())
	}
}

func main() {
	log.SetFlags(0)
	all := files{}
	load(os.Args[1], "", all)
	chart, err := parsed(all["Chart.yaml"])
	check(err)
	defaults, err := parsed(all["values.yaml"])
	check(err)
	given, err := io.ReadAll(os.Stdin)
	check(err)
	over, err := parsed(given)
	check(err)
	values := merged(defaults, over)
	validate(all["values.schema.json"], values)

	root := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["toYaml"] = toYaml
	functions["fromYaml"] = func(text string) (object, error) { return parsed([]byte(text)) }
	functions["include"] = func(name string, data interface{}) (string, error) {
		var text bytes.Buffer
		err := root.ExecuteTemplate(&text, name, data)
		return text.String(), err
	}
	root.Funcs(functions)
	var names []string
	for name, text := range all {
		if strings.HasPrefix(name, "templates/") {
			template.Must(root.New(name).Parse(string(text)))
			names = append(names, name)
		}
		if strings.HasPrefix(name, "crds/") {
			fmt.Printf("---\n%s\n", text)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), "_") {
			continue
		}
		var text bytes.Buffer
		check(root.ExecuteTemplate(&text, name, object{
			"Values":  values,
			"Chart":   object{"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]},
			"Release": object{"Name": "manx", "Namespace": os.Args[2], "Service": "Helm"},
			"Files":   all,
		}))
		fmt.Printf("---\n%s\n", strings.ReplaceAll(text.String(), "<no value>", ""))
	}
}
