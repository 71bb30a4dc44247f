{{- define "gemproxy.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "gemproxy.name" -}}
{{ printf "%s-%s" .root.Release.Name .part | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gemproxy.secret" -}}
{{ .Values.secret.existing | default (printf "%s-keys" .Release.Name) }}
{{- end }}

{{- /* The keys that there are and that a part uses, as JSON. */ -}}
{{- define "gemproxy.keys" -}}
{{- $root := .root -}}
{{- $mine := ternary (list "GEMINI_API_KEY") (list "FIXED_API_KEY") (eq .part "gemini") -}}
{{- $used := list -}}
{{- range concat $mine (list "PROXY_API_KEYS" "ADMIN_KEY" "STATE_URL") -}}
{{- if ternary (has . $root.Values.secret.has) (ne (index $root.Values.secret . | toString) "") (ne $root.Values.secret.existing "") -}}
{{- $used = append $used . -}}
{{- end -}}
{{- end -}}
{{ toJson $used }}
{{- end }}

{{- define "gemproxy.deployment" -}}
{{- $values := index .root.Values .part -}}
{{- $keys := include "gemproxy.keys" . | fromJsonArray -}}
{{- $settings := merge (dict) .settings $values.settings .root.Values.settings -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "gemproxy.name" . }}
  labels: {{- include "gemproxy.labels" . | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "gemproxy.labels" . | nindent 6 }}
  strategy:
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels: {{- include "gemproxy.labels" . | nindent 8 }}
      annotations:
        # Pods are made anew when keys or settings change.
        checksum/keys: {{ toJson .root.Values.secret | sha256sum }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      # Above the time for the cluster to notice, that for answers, and last words.
      terminationGracePeriodSeconds: {{ add .root.Values.preStop .root.Values.drain 15 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "gemproxy.labels" . | nindent 14 }}
      {{- with $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: gemproxy
          image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          ports:
            - name: http
              containerPort: {{ .port }}
          env:
            - name: DRAIN
              value: {{ .root.Values.drain | quote }}
            {{- range $name, $value := $settings }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
            {{- if .root.Values.valkey.enabled }}
            - name: STATE_URL
              value: redis://{{ include "gemproxy.name" (dict "root" .root "part" "valkey") }}:6379
            {{- end }}
            {{- range $keys }}
            - name: {{ . }}_FILE
              value: /etc/gemproxy/keys/{{ . }}
            {{- end }}
          startupProbe:
            httpGet: {path: /health, port: http}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 5
            timeoutSeconds: 3
          livenessProbe:
            httpGet: {path: /health, port: http}
            periodSeconds: 30
            timeoutSeconds: 10
            failureThreshold: 3
          lifecycle:
            preStop:
              # Until no more requests are sent here; then the daemon drains.
              exec:
                command: [sleep, {{ .root.Values.preStop | quote }}]
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
            {{- if $keys }}
            - {name: keys, mountPath: /etc/gemproxy/keys, readOnly: true}
            {{- end }}
      volumes:
        - name: data
          emptyDir: {}
        - name: tmp
          emptyDir: {}
        {{- if $keys }}
        - name: keys
          secret:
            secretName: {{ include "gemproxy.secret" .root }}
            defaultMode: 0440
            items:
              {{- range $keys }}
              - {key: {{ . }}, path: {{ . }}}
              {{- end }}
        {{- end }}
{{- end }}

{{- define "gemproxy.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "gemproxy.name" . }}
  labels: {{- include "gemproxy.labels" . | nindent 4 }}
spec:
  type: {{ .type }}
  selector: {{- include "gemproxy.labels" . | nindent 4 }}
  ports:
    - name: http
      port: {{ (index .root.Values .part).service.port }}
      targetPort: http
{{- end }}

{{- define "gemproxy.disruptions" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "gemproxy.name" . }}
  labels: {{- include "gemproxy.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels: {{- include "gemproxy.labels" . | nindent 6 }}
{{- end }}

{{- define "gemproxy.autoscaler" -}}
{{- $scaling := (index .root.Values .part).autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "gemproxy.name" . }}
  labels: {{- include "gemproxy.labels" . | nindent 4 }}
spec:
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "gemproxy.name" . }}
  metrics:
    - type: Pods
      pods:
        metric:
          name: gemproxy_requests_under_way
        target:
          type: AverageValue
          averageValue: {{ $scaling.requestsUnderWay | quote }}
  behavior:
    scaleDown:
      # Pods that go have answers to end.
      stabilizationWindowSeconds: 300
{{- end }}

{{- define "gemproxy.monitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "gemproxy.name" . }}
  labels: {{- include "gemproxy.labels" . | nindent 4 }}
    {{- with .root.Values.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels: {{- include "gemproxy.labels" . | nindent 6 }}
  endpoints:
    - port: http
      path: /metrics
      interval: {{ .root.Values.serviceMonitor.interval }}
      {{- if has "ADMIN_KEY" (include "gemproxy.keys" . | fromJsonArray) }}
      authorization:
        credentials:
          name: {{ include "gemproxy.secret" .root }}
          key: ADMIN_KEY
      {{- end }}
{{- end }}

{{- define "gemproxy.all" -}}
{{- $values := index .root.Values .part -}}
{{ include "gemproxy.deployment" . }}
---
{{ include "gemproxy.service" . }}
{{- if .root.Values.podDisruptionBudget.enabled }}
---
{{ include "gemproxy.disruptions" . }}
{{- end }}
{{- if $values.autoscaling.enabled }}
---
{{ include "gemproxy.autoscaler" . }}
{{- end }}
{{- if .root.Values.serviceMonitor.enabled }}
---
{{ include "gemproxy.monitor" . }}
{{- end }}
{{- end }}
