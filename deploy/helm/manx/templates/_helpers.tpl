{{/* The objects of a file of the base, of this release: its namespace, image, settings and values. */}}
{{- define "manx.objects" -}}
{{- $root := .root -}}
{{- $text := $root.Files.Get .file | replace "namespace: manx-system" (printf "namespace: %s" $root.Release.Namespace) -}}
{{- range $document := splitList "\n---\n" $text }}
{{- $object := fromYaml $document }}
{{- if or (eq $object.kind "DaemonSet") (eq $object.kind "Deployment") }}
{{- $pod := $object.spec.template.spec }}
{{- $own := ternary $root.Values.agent $root.Values.controller (eq $object.kind "DaemonSet") }}
{{- range $container := concat (default (list) $pod.initContainers) $pod.containers }}
{{- $_ := set $container "image" (include "manx.image" $root) }}
{{- end }}
{{- if $own.resources }}
{{- $_ := set (first $pod.containers) "resources" $own.resources }}
{{- end }}
{{- if $own.nodeSelector }}
{{- $_ := set $pod "nodeSelector" (merge (dict) $own.nodeSelector $pod.nodeSelector) }}
{{- end }}
{{- if $own.replicas }}
{{- $_ := set $object.spec "replicas" (int $own.replicas) }}
{{- end }}
{{- range $volume := $pod.volumes }}
{{- if $volume.configMap }}
{{- $_ := set $volume.configMap "name" (include "manx.configMap" $root) }}
{{- end }}
{{- end }}
{{- end }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}

{{- define "manx.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* manxd.yaml: that of the base, with what the values say otherwise. */}}
{{- define "manx.settings" -}}
{{ toYaml (mergeOverwrite (.Files.Get "base/manxd.yaml" | fromYaml) .Values.settings) }}
{{- end }}

{{/* Its name carries a hash of the content: agents start anew when their settings change. */}}
{{- define "manx.configMap" -}}
manxd-{{ printf "%s%s" (include "manx.settings" .) (.Files.Get "base/10-manx.conflist") | sha256sum | trunc 10 }}
{{- end }}

{{/* Resources of a kind of Manx's, from their specifications by their names. */}}
{{- define "manx.resources" -}}
{{- $kind := .kind -}}
{{- range $name, $spec := .specifications }}
---
apiVersion: manx.network/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
spec:
  {{- toYaml $spec | nindent 2 }}
{{- end }}
{{- end }}
